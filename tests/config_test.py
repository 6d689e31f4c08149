import ast
import importlib.util
from pathlib import Path

import pytest
from refinenet_jax.models.build import VARIANTS

from refinenet_jax import config as config_lib
from refinenet_jax import config_check
from refinenet_jax.errors import UserError
from tests.data import ask

REPOSITORY = Path(__file__).parent.parent
CONFIGS = sorted((REPOSITORY / "configs").glob("*.py"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_default_passes_its_own_check():
    config_check.check(config_lib.default())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("variant", [None, *VARIANTS])
def test_every_config_with_every_variant_is_consistent(path, variant):
    config = load(path).get_config(variant)
    config_check.check(config)
    assert config.model.variant == variant or variant is None
    assert config.model.variant in VARIANTS
    if config.data.name == "folder":  # its classes are the person's
        assert config.model.num_classes == 0
        return
    dataset = ask.lookup(config.data.name)
    assert config.model.num_classes == dataset.num_classes
    assert {config.data.train_split, config.data.eval_split} <= set(dataset.splits)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_import_only_the_defaults(path):
    imported = [
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert set(imported) == {"refinenet_jax.config"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_say_how_they_are_run(path):
    docstring = load(path).__doc__
    assert f"--config=configs/{path.name}" in docstring


def test_every_field_is_read_somewhere():
    sources = [
        path.read_text()
        for path in (REPOSITORY / "refinenet_jax").rglob("*.py")
        if path.name != "config.py"
    ]
    code = "\n".join(sources)
    fields = config_lib.flatten(config_lib.default())
    unread = [name for name in fields if f".{name.split('.')[-1]}" not in code]
    assert not unread


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.dtype", "float16", "known: float32, bfloat16"),
        ("model.batch_norm", "sync", "known: trained, frozen_statistics, frozen"),
        ("optimizer.name", "lamb", "known: sgd, adamw"),
        ("optimizer.schedule", "linear", "known: constant, step, poly, cosine"),
        ("loss.resolution", "half", "known: label, prediction"),
        ("seed", -1, "config.seed=-1 must be in 0"),
        ("data.scale_range", ("a", "b"), "two numbers"),
        ("data.crop_size", 0, "config.data.crop_size=0 must be more than 0"),
        ("data.scale_range", (2.0, 1.0), "two numbers"),
        ("optimizer.step_at", (0.8, 0.5), "rising shares"),
        ("model.num_classes", 256, "2..255"),
        ("data.damaged", "ignore", "known: stop, skip"),
        ("data.sampling", "balanced", "known: uniform, class_balanced"),
        ("data.crop", "centre", "known: random, class_centred"),
        ("data.folder.encoding", "rgb", "known: ids, colours"),
        ("data.folder.ignore", (-1,), "a tuple of values in 0..65535"),
        ("data.mix", ({"name": "voc2012"},), "dictionaries of name, split, weight"),
        ("data.mix", ("voc2012",), "dictionaries of name, split, weight"),
        ("data.colour_jitter", (0.1, 0.1, 0.1, 0.6), "the last up to 0.5"),
    ],
)
def test_bad_values_are_refused_by_name(field, value, message):
    config = config_lib.default()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as error:
        config_check.check(config)
    assert f"config.{field}" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.steps", "config.train.steps is unknown; known there: batch_size, "),
        ("trian.num_steps", "config.trian is unknown; known there: data, eval, "),
        ("seed.x", "config.seed is unknown"),
    ],
)
def test_unknown_fields_list_the_known(path, message):
    with pytest.raises(UserError, match=message):
        config_check.check_field(path)


def test_known_fields_pass():
    for name in config_lib.flatten(config_lib.default()):
        config_check.check_field(name)
