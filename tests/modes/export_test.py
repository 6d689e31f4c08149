"""Every file of mode export in its own runtime, without this package."""

import contextlib
import hashlib
import importlib.util
import json
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

from refinenet_jax.assembly.network import describe
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.config import default
from refinenet_jax.config_check import check
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.errors import UserError
from refinenet_jax.inference import programs
from refinenet_jax.models.leaves import split_network
from refinenet_jax.models.resize import resize
from refinenet_jax.modes import export
from refinenet_jax.segmenter import Segmenter
from tests.data import ask
from tests.data.conftest import Writer
from tests.random_network import random_light_resnet18

HEIGHT, WIDTH = 64, 96
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(x) for x in ("jax2onnx", "onnxruntime")),
    reason="needs pip install 'refinenet_jax[onnx]', and then "
    "pip install --no-deps jax2onnx==0.17.1",
)
# Loads a file with one package and none of ours: FILE IMAGES CLASSES as arguments.
ALONE = """
import sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {refused}:
            raise ImportError(name)

sys.meta_path.insert(0, Refused())
import numpy as np

file, images, classes = sys.argv[1:]
image = np.load(images)
{snippet}
np.save(classes, found)
"""
STABLEHLO = """
import jax

exported = jax.export.deserialize(bytearray(open(file, "rb").read()))
found = exported.call(image)
"""
ONNX = """
import onnxruntime

session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
[found] = session.run(["classes"], {"image": image})
"""


@pytest.fixture(scope="module")
def network():
    """Random weights that give every class somewhere."""
    network = random_light_resnet18(21, seed=1)
    kernel = network.decoder.classifier.kernel
    kernel[...] = kernel[...] - kernel[...].mean(axis=(0, 1, 2), keepdims=True)
    return network


@pytest.fixture
def config(tmp_path):
    """Of VOC with two images to evaluate."""
    Writer().voc(tmp_path / "voc", ["a"], ["b", "c"])
    config = default()
    config.model.num_classes = 21
    config.data.name = "voc2012"
    config.data.manual_dir = str(tmp_path / "voc")
    config.data.dir = str(tmp_path / "prepared")
    config.export.size = (HEIGHT, WIDTH)
    return config


@pytest.fixture
def workdir(network, config, tmp_path):
    """What mode convert would have written."""
    _, params, batch_stats = split_network(network)
    workdir = tmp_path / "run"
    with contextlib.closing(Checkpoints(workdir, keep_latest=1)) as checkpoints:
        metadata = describe(config, ask.lookup("voc2012"))
        checkpoints.save_network(params, batch_stats, metadata)
    return workdir


def pictures(count):
    """Blotches, so that the classes vary within a picture."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 5, 7, 3)).astype(np.uint8)
    return np.stack(
        [cv2.resize(x, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC) for x in coarse]
    )


@pytest.fixture
def folder(tmp_path):
    """Two pictures, one of them larger than the program's."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(pictures(2)):
        picture = cv2.resize(picture, None, fx=2, fy=3) if index == 1 else picture
        cv2.imwrite(str(folder / f"{index}.png"), picture[..., ::-1])
    return folder


def run_alone(snippet, refused, file, tmp_path):
    """Class ids of three pictures, by a process that imports nothing of `refused`."""
    np.save(tmp_path / "images.npy", pictures(3))
    paths = [file, tmp_path / "images.npy", tmp_path / "classes.npy"]
    code = ALONE.format(refused=refused, snippet=snippet)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return np.load(tmp_path / "classes.npy")


@pytest.fixture(scope="module")
def expected(network):
    """Class ids of three pictures by the network itself, uint8 [3,H,W]."""
    config = default()
    config.model.num_classes = 21
    segmenter = Segmenter(network, describe(config, ask.lookup("voc2012")))
    expected = np.stack(segmenter.predict(list(pictures(3))))
    assert len(np.unique(expected)) > 3
    return expected


def assert_same_classes(found, expected):
    assert found.dtype == np.uint8
    assert found.shape == expected.shape
    assert np.mean(found == expected) > 0.999  # where two classes all but tie


def written(workdir):
    return sorted(path.name for path in (workdir / "export").iterdir())


def record_of(workdir):
    return json.loads((workdir / "export" / "export.json").read_text())


@pytest.mark.slow
def test_stablehlo_needs_jax_alone(config, workdir, folder, expected, tmp_path, capsys):
    export.run(config, workdir, [str(folder)])
    assert written(workdir) == [
        "export.json",
        "network.safetensors",
        "network.stablehlo",
    ]
    said = capsys.readouterr().out
    assert re.search(
        r"stablehlo: the classes of \S+% of the pixels of 2 pictures", said
    )
    record = record_of(workdir)
    assert record["input"]["shape"] == ["batch", HEIGHT, WIDTH, 3]
    assert record["output"]["shape"] == ["batch", HEIGHT, WIDTH]
    assert record["class_names"] == list(ask.lookup("voc2012").class_names)
    assert set(record["formats"]) == {"safetensors", "stablehlo"}
    for entry in record["formats"].values():
        content = (workdir / "export" / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    entry = record["formats"]["stablehlo"]
    assert entry["images"] == 2
    assert 0.999 <= entry["agreement"] <= 1
    assert entry["seconds"] > 0
    file = workdir / "export" / "network.stablehlo"
    refused = ("refinenet_jax", "flax", "optax", "orbax")
    assert_same_classes(run_alone(STABLEHLO, refused, file, tmp_path), expected)


@pytest.mark.slow
def test_a_wrong_program_is_not_kept(config, workdir, folder, monkeypatch):
    file = workdir / "export" / "network.stablehlo"
    file.parent.mkdir()
    file.write_bytes(b"from before")

    def negated(logits, *arguments):
        return resize(logits.with_values(-logits.values), *arguments)

    monkeypatch.setattr(programs, "resize", negated)
    with pytest.raises(UserError, match="as stablehlo, .* is not kept") as error:
        export.run(config, workdir, [str(folder)])
    assert "\n" not in str(error.value)
    assert file.read_bytes() == b"from before"
    assert set(record_of(workdir)["formats"]) == {"safetensors"}
    assert written(workdir) == [
        "export.json",
        "network.safetensors",
        "network.stablehlo",
    ]


def test_without_pictures_the_evaluation_split_is_taken(config):
    found = export._pictures(config, [], RGB)
    assert [picture.shape for picture in found] == [(HEIGHT, WIDTH, 3)] * 2
    assert not np.array_equal(*found)


@pytest.mark.slow  # compiles a network of its own
def test_a_program_in_bfloat16(config, workdir):
    config.export.formats = ("stablehlo",)
    config.model.dtype = "bfloat16"
    export.run(config, workdir, [])
    assert written(workdir) == ["export.json", "network.stablehlo"]
    record = record_of(workdir)
    assert record["dtype"] == "bfloat16"
    assert record["formats"]["stablehlo"]["agreement"] > 0.99  # measured: 0.9987


@pytest.mark.slow
def test_without_any_pictures_only_the_weights_are_written(
    config, workdir, tmp_path, capsys
):
    """Nothing is downloaded to have pictures."""
    config.data.manual_dir = ""
    config.data.dir = str(tmp_path / "nothing prepared")
    export.run(config, workdir, [])
    assert written(workdir) == ["export.json", "network.safetensors"]
    asked = "no pictures to try stablehlo on"
    assert asked in capsys.readouterr().out
    config.export.formats = ("stablehlo",)
    with pytest.raises(UserError, match=f"{asked}.*give some with --images=FILE"):
        export.run(config, workdir, [])


def test_a_place_that_cannot_be_written_to(config, workdir, folder):
    (workdir / "export").write_text("in the way")
    config.export.formats = ("stablehlo",)
    with pytest.raises(UserError, match="cannot write export.json into"):
        export.run(config, workdir, [str(folder)])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("export.formats", ()),
        ("export.formats", ("onnx", "tflite")),
        ("export.size", (512,)),
        ("export.size", (0, 512)),
    ],
)
def test_bad_settings_are_refused_by_name(field, value):
    config = default()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"config.{field}.* must be"):
        check(config)


def test_missing_packages_are_named_with_the_commands(config, workdir, monkeypatch):
    config.export.formats = ("stablehlo", "onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        UserError, match=r"needs onnx: pip install .*\[onnx\]'.* --no-deps"
    ):
        export.run(config, workdir, [])
    assert not (workdir / "export").exists()


@needs_onnx
def test_onnx_is_float32(config, workdir):
    config.export.formats = ("onnx",)
    config.model.dtype = "bfloat16"
    with pytest.raises(UserError, match="add --config.model.dtype=float32"):
        export.run(config, workdir, [])


@needs_onnx
@pytest.mark.slow  # converts and compiles a whole network
def test_onnx_needs_its_runtime_alone(config, workdir, folder, expected, tmp_path):
    import onnx

    config.export.formats = ("onnx",)
    export.run(config, workdir, [str(folder)])
    file = workdir / "export" / "network.onnx"
    model = onnx.load(str(file))
    onnx.checker.check_model(model, full_check=True)
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["step"] == 0
    assert properties["class_names"] == list(ask.lookup("voc2012").class_names)
    assert len(properties["palette"]) == 21
    assert record_of(workdir)["formats"]["onnx"]["agreement"] >= 0.999
    refused = ("refinenet_jax", "jax", "jaxlib", "flax", "onnx")
    assert_same_classes(run_alone(ONNX, refused, file, tmp_path), expected)
