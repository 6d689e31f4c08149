import json

import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.models.architecture import Architecture, check_same_network
from tests.architectures import architecture


def test_comes_back_from_json():
    described = architecture("resnet50", 7, input_scales=(1.2, 0.6), void_output=True)
    values = json.loads(json.dumps(described.to_json()))
    assert Architecture.from_json(values) == described


def test_missing_and_unknown_fields_are_named():
    values = architecture("resnet50").to_json()
    del values["cascade"]
    values["cascades"] = 4
    with pytest.raises(UserError, match="cascade, cascades"):
        Architecture.from_json(values)


def test_void_is_one_output_more():
    assert architecture("resnet50", 21).num_outputs == 21
    assert architecture("resnet50", 21, void_output=True).num_outputs == 22


class TestCheckSameNetwork:
    WANTED = architecture("resnet50", 21).to_json()

    def check(self, *, with_classifier=True, **changes):
        check_same_network(
            "file",
            {**self.WANTED, **changes},
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
