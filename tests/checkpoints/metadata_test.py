import dataclasses
import json
from pathlib import Path

import pytest

from refinenet_jax.checkpoints.metadata import VERSION, Metadata
from refinenet_jax.errors import UserError
from refinenet_jax.models import Architecture

# As the program wrote it before the form had a number (light_mobilenet_v2 on the shapes).
BEFORE = Path(__file__).with_name("metadata_0.json")


def test_comes_back_from_json():
    metadata = Metadata(
        Architecture("light_resnet50", 2, mean=(1.0,), std=(2.0,)),
        ("a", "b"),
        ((0, 0, 0), (9, 8, 7)),
        dataset="own",
        dtype="bfloat16",
        config={"train": {"num_steps": 3}},
        step=3,
        mean_iou=0.5,
        weights={"file": "a.pth"},
    )
    text = json.dumps(metadata.to_json())
    assert Metadata.from_json(json.loads(text)) == metadata


def test_what_was_written_before_the_form_had_a_number():
    metadata = Metadata.from_json(json.loads(BEFORE.read_text()))
    assert metadata.architecture == Architecture("light_mobilenet_v2", 6)
    assert metadata.architecture.mean == (123.675, 116.28, 103.53)
    assert metadata.class_names[-1] == "cross"
    assert metadata.palette[1] == (214, 69, 65)
    assert (metadata.step, metadata.mean_iou) == (240, 0.9108612247458425)
    assert metadata.optimizer == "adamw"
    assert metadata.weights is None
    assert metadata.config["train"]["num_steps"] == 240


def test_a_field_that_is_missing_has_its_default():
    short = {
        "version": VERSION,
        "architecture": {"variant": "resnet50", "num_classes": 2},
        "class_names": ["a", "b"],
        "palette": [[0, 0, 0], [1, 1, 1]],
    }
    found = Metadata.from_json(short)
    defaults = {
        field.name: field.default
        for field in dataclasses.fields(Metadata)
        if field.default is not dataclasses.MISSING
    }
    assert {name: getattr(found, name) for name in defaults} == defaults


def test_a_later_form_is_refused_with_the_remedy():
    later = {**json.loads(BEFORE.read_text()), "version": VERSION + 1}
    with pytest.raises(UserError, match=f"form {VERSION + 1}.*install the version"):
        Metadata.from_json(later)


@pytest.mark.parametrize("field", ["architecture", "class_names", "palette"])
def test_what_is_no_metadata(field):
    values = json.loads(BEFORE.read_text())
    del values[field]
    with pytest.raises(KeyError, match=field):
        Metadata.from_json(values)
