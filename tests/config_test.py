import ast
import dataclasses
from pathlib import Path

import pytest

from refinenet_jax import config as config_lib
from refinenet_jax import config_check
from refinenet_jax.data.datasets import lookup
from refinenet_jax.errors import UserError
from refinenet_jax.inference.protocol import Protocol
from refinenet_jax.models import VARIANTS as MODELS
from refinenet_jax.models import Architecture
from refinenet_jax.settings import GROUPS, SETTINGS
from refinenet_jax.settings.data import DATASETS
from refinenet_jax.settings.network import VARIANTS
from refinenet_jax.settings.page import page
from tests.config_reads import reads
from tests.data import ask

REPOSITORY = Path(__file__).parent.parent
CONFIGS = sorted((REPOSITORY / "configs").glob("*.py"))

# Groups that are read by the names of a dataclass's fields.
BY_NAME = {"eval": Protocol, "model": Architecture}


def test_default_passes_its_own_check():
    config_check.check(config_lib.default())


def test_default_holds_each_setting():
    flat = config_lib.flatten(config_lib.default())
    assert flat == {name: setting.default for name, setting in SETTINGS.items()}


def test_settings_stand_in_the_order_of_their_groups():
    groups = [setting.group for setting in SETTINGS.values()]
    assert list(dict.fromkeys(groups)) == list(GROUPS)
    assert groups == sorted(groups, key=list(GROUPS).index)


def test_settings_are_sentences():
    for setting in SETTINGS.values():
        assert setting.text[0].isupper() or not setting.text[0].isalpha(), setting.name
        assert setting.text.endswith("."), setting.name


def test_variants_and_data_sets_that_help_lists_are_those_there_are():
    assert sorted(VARIANTS) == sorted(MODELS)
    with pytest.raises(UserError) as error:
        lookup(ask.request("no such data set"))
    assert str(error.value).endswith(f"known: {', '.join(DATASETS)}")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("variant", ["", *VARIANTS])
def test_every_config_with_every_variant_is_consistent(path, variant):
    config = config_lib.load(path, variant)
    config_check.check(config)
    assert config.model.variant == (variant or config.model.variant)
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
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"--config=configs/{path.name}" in docstring


def test_every_field_is_read_and_every_field_that_is_read_is_there():
    package = REPOSITORY / "refinenet_jax"
    # These go through all fields, whatever they are.
    passing = {"config.py", "config_check.py", "show.py"}
    sources = [p.read_text() for p in package.rglob("*.py") if p.name not in passing]
    found = reads([source for source in sources if "ConfigDict" in source], SETTINGS)
    assert not found.unknown
    assert found.by_name == set(BY_NAME)
    by_name = {
        f"{group}.{field.name}"
        for group, dataclass in BY_NAME.items()
        for field in dataclasses.fields(dataclass)
    }
    assert by_name <= set(SETTINGS)
    assert set(SETTINGS) - found.fields - by_name == set()


READER = """
def run(config: ConfigDict, other):
    data = config.data
    made = build(config.train, Folder(**data.folder))
    config.loss.name = other.optimizer.name
    return data.name, [config.eval[n] for n in NAMES], config.model["mean"], made

def build(settings: ConfigDict, folder):
    return settings.size + settings.typo

class Run:
    def go(self):
        config, name = self.config.export, self.config.seed
        return config.size
"""


def test_the_reader_is_not_fooled_by_equal_last_names():
    groups = {
        "data": "name size",
        "data.folder": "name suffix",
        "eval": "name",
        "export": "name size",
        "loss": "name",
        "model": "mean size",
        "optimizer": "name",
        "train": "name size",
    }
    fields = ["seed"]
    fields += [f"{group}.{n}" for group, ns in groups.items() for n in ns.split()]
    found = reads([READER], fields)
    assert found.fields == {
        "seed",
        "data.name",
        "data.folder.name",
        "data.folder.suffix",
        "model.mean",
        "train.size",
        "export.size",
    }
    assert found.unknown == {"train.typo"}
    assert found.by_name == {"eval"}


NAN = float("nan")
INFINITE = float("inf")


@pytest.mark.parametrize("name", SETTINGS)
def test_each_rule_refuses_what_cannot_be(name):
    rule, default = SETTINGS[name].rule, SETTINGS[name].default
    for value in (None, NAN, INFINITE, -INFINITE, 10**400, object(), {}, "a\nb"):
        assert not rule.holds(value)
        assert not rule.holds((value, value))
    if not isinstance(default, bool):
        assert not rule.holds(True)
    if not isinstance(default, str):
        assert not rule.holds("1")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.dtype", "float16", "known: float32, bfloat16; did you mean bfloat16"),
        ("model.batch_norm", "sync", "known: trained, frozen_statistics, frozen"),
        ("optimizer.name", "lamb", "known: sgd, adamw"),
        ("optimizer.schedule", "linear", "known: constant, step, poly, cosine"),
        ("loss.resolution", "half", "known: label, prediction"),
        ("model.variant", "resnet105", "did you mean resnet"),
        ("data.name", "ade20", "did you mean ade20k"),
        ("seed", -1, "seed=-1 must be a whole number in 0..4294967295"),
        ("data.scale_range", ("a", "b"), "must be a tuple of 2, each more than 0"),
        ("data.crop_size", 0, "crop_size=0 must be a whole number in 1..8192"),
        ("data.crop_size", 1_000_000, "in 1..8192"),
        ("train.batch_size", 2**31, "in 1..65536"),
        ("eval.size_multiple", 10**9, "in 1..8192"),
        ("eval.scales", (1e6,), "each more than 0 and at most 16"),
        ("eval.bootstrap_samples", 10**10, "in 0..100000"),
        ("data.num_threads", 10**6, "in 1..256"),
        ("optimizer.learning_rate", INFINITE, "more than 0 and at most 1e[+]38"),
        ("optimizer.learning_rate", 0.0, "more than 0"),
        ("optimizer.weight_decay", INFINITE, "in 0..1e[+]38"),
        ("optimizer.clip_norm", NAN, "clip_norm=nan must be in 0..1e[+]38"),
        ("data.blur", INFINITE, "in 0..100"),
        ("model.mean", (1e9, 0.0, 0.0), "a tuple of 3, each in 0..255, or ()"),
        ("model.mean", (1.0, 2.0), "a tuple of 3"),
        ("model.std", (0.0, 1.0, 1.0), "a tuple of 3, each more than 0"),
        ("data.scale_range", (2.0, 1.0), "the smaller first"),
        ("optimizer.step_at", (0.8, 0.5), "the smaller first"),
        ("model.num_classes", 256, "0, or a whole number in 2..255"),
        ("model.num_classes", 1, "2..255"),
        ("model.input_scales", (), "a tuple of 1 to 8"),
        ("data.damaged", "ignore", "known: stop, skip"),
        ("data.sampling", "balanced", "known: uniform, class_balanced"),
        ("data.crop", "centre", "known: random, class_centred"),
        ("data.folder.encoding", "rgb", "known: ids, colours"),
        ("data.folder.ignore", (-1,), "each a whole number in 0..65535"),
        ("data.mix", ({"name": "voc2012"},), "a dictionary of name .*, split .*"),
        ("data.mix", ("voc2012",), "a dictionary of name .*, split .*"),
        ("data.colour_jitter", (0.1, 0.1, 0.1, 0.6), r"hue \(in 0..0.5\)"),
        ("data.colour_jitter", (0.1, 0.1, 0.1), "a tuple of brightness"),
        ("export.formats", ("jpeg",), "each one of safetensors, stablehlo, onnx"),
        ("eval.buckets", ((512,),), "each a tuple of 2, each a whole number"),
        ("data.dir", "x" * 5000, "must be text on one line"),
        ("predict.submission", "voc", "known: voc2012, cityscapes, ade20k"),
    ],
)
def test_bad_values_are_refused_by_name(field, value, message):
    config = config_lib.default()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message) as error:
        config_check.check(config)
    assert f"config.{field}" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data.weight", 2),
        ("data.scale_range", [1, 1]),
        ("model.num_classes", 0),
        ("model.mean", (127.5, 0, 255)),
        ("predict.submission", "ade20k"),
        (
            "data.mix",
            (
                {
                    "name": "voc2012",
                    "split": "train",
                    "weight": 0.5,
                    "manual_dir": "",
                    "class_map": "",
                    "min_pixels": 0,
                },
            ),
        ),
    ],
)
def test_good_values_pass(field, value):
    config = config_lib.default()
    config.update_from_flattened_dict({field: value})
    config_check.check(config)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train.steps", "config.train.steps is unknown; known there: accumulate, "),
        ("train.steps", "did you mean train.num_steps"),
        (
            "trian.num_steps",
            "config.trian is unknown; known there: data, demo, eval, .*; did you mean train",
        ),
        ("learning_rate", "did you mean optimizer.learning_rate"),
        ("data.folder.x", "config.data.folder.x is unknown; known there: classes, "),
        ("seed.x", "config.seed.x is unknown"),
        ("train", "config.train is a group: set one of its fields, accumulate, "),
    ],
)
def test_unknown_fields_list_the_known(path, message):
    with pytest.raises(UserError, match=message):
        config_check.check_field(path)


def test_known_fields_pass():
    for name in config_lib.flatten(config_lib.default()):
        config_check.check_field(name)


def test_the_page_of_settings_is_that_of_the_table():
    written = (REPOSITORY / "docs" / "settings.md").read_text()
    assert written == page(), "run python -m refinenet_jax.settings > docs/settings.md"
    for setting in SETTINGS.values():
        assert f"| `{setting.name}` | `{setting.default!r}` | " in written
    for line in written.splitlines():
        assert line.count("|") in (0, 5), line
