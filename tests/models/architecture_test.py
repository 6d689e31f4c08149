import dataclasses
import json
import re

import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.models.architecture import Architecture, check_same_network
from tests.architectures import architecture


def test_comes_back_from_json():
    described = architecture("resnet50", 7, input_scales=(1.2, 0.6), void_output=True)
    values = json.loads(json.dumps(described.to_json()))
    assert Architecture.from_json(values) == described


def test_a_missing_field_has_its_default_and_an_unknown_one_is_named():
    assert Architecture.from_json(
        {"variant": "light_resnet50", "num_classes": 7}
    ) == Architecture("light_resnet50", 7)
    with pytest.raises(UserError, match="later version: cascades is unknown"):
        Architecture.from_json({**architecture("resnet50").to_json(), "cascades": 4})


def test_normalisation_is_the_backbones_own_unless_given():
    assert Architecture("resnet50_caffe", 21).mean == (128.0,) * 3
    assert Architecture("light_efficientnet_lite0", 21).std == (128.0,) * 3
    described = Architecture("resnet50", 21, mean=[5.0], std=[2.0])
    assert (described.mean, described.std, described.channels) == ((5.0,), (2.0,), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"variant": "resnet5"},
            "variant='resnet5' is unknown; known: resnet18",
        ),
        ({"cascade": "4"}, "cascade='4' is unknown; known: single, 2_cascaded"),
        ({"pooling": "max"}, "pooling='max' is unknown; known: original, improved"),
        ({"fusion_resize": "nearest"}, "known: align_corners, bicubic"),
        ({"num_classes": 0}, "num_classes=0 must be 1 or more"),
        ({"mean": (1.0,)}, "mean has 1 channels and std 3"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Architecture(**{"variant": "resnet50", "num_classes": 21, **changes})


def test_void_is_one_output_more():
    assert architecture("resnet50", 21).num_outputs == 21
    assert architecture("resnet50", 21, void_output=True).num_outputs == 22


class TestCheckSameNetwork:
    WANTED = architecture("resnet50", 21)

    def check(self, *, with_classifier=True, **changes):
        check_same_network(
            "file",
            dataclasses.replace(self.WANTED, **changes),
            self.WANTED,
            with_classifier=with_classifier,
        )

    def test_passes_the_same(self):
        assert self.check() is None

    def test_names_what_differs(self):
        with pytest.raises(UserError) as error:
            self.check(cascade="single", num_classes=7)
        message = str(error.value)
        assert message.startswith("file ")
        assert "num_classes=7 and cascade='single'" in message
        assert "num_classes=21 and cascade='4_cascaded'" in message

    def test_without_the_classifier_passes_other_classes(self):
        assert (
            self.check(with_classifier=False, num_classes=7, void_output=True) is None
        )
        with pytest.raises(UserError, match="variant"):
            self.check(with_classifier=False, variant="resnet101", num_classes=7)
