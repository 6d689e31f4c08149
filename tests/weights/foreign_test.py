"""Files as people have them: each loads, or one line says what it is and what to do."""

import argparse
import collections
import datetime
import gzip
import io
import pathlib
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.weights import torch as torch_files
from refinenet_jax.weights.load import read_weights
from tests.architectures import architecture
from tests.references import weight_keys
from tests.weights.networks import checkpoint_of, in_torch, shapes_of

VARIANT = "light_resnet18"
TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.asarray(7, np.int64),
}
OTHERS = {key: np.asarray(array + 1) for key, array in TENSORS.items()}


@pytest.fixture
def save(tmp_path):
    """Saves an object as torch does, its arrays as tensors; gives the path."""
    torch = pytest.importorskip("torch")

    def save(content, name="file.pth", **options):
        path = tmp_path / name
        torch.save(content, path, **options)
        return path

    return save


def tensors_of(path, choice=""):
    return torch_files.read(path, choice).tensors


def refused(path, choice=""):
    """The one line that a file is refused with."""
    with pytest.raises(UserError) as error:
        torch_files.read(torch_files.locate(f"{path}{choice and '#'}{choice}"), choice)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)


BESIDE = {
    "a NumPy number": np.float64(0.25),
    "a NumPy number of 32 bits": np.float32(0.25),
    "a NumPy truth": np.bool_(True),
    "a NumPy array": np.arange(3.0),
    "an array of objects": np.array(["a", None], object),
    "a random state": np.random.RandomState(0).get_state(),
    "arguments": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), size=(1, 2)),
    "a namespace": types.SimpleNamespace(lr=0.1),
    "a defaultdict": collections.defaultdict(list, {"loss": [0.5]}),
    "a deque": collections.deque([0.5], maxlen=3),
    "a time": datetime.datetime(2020, 1, 1) + datetime.timedelta(1),
    "sets and slices": [{1}, frozenset({2}), slice(1, 2), range(3)],
    "an optimiser": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", BESIDE)
def test_what_stands_beside_the_weights_is_passed_over(what, zipped, save):
    content = {"epoch": 3, "state_dict": in_torch(TENSORS), "more": BESIDE[what]}
    path = save(content, _use_new_zipfile_serialization=zipped)
    assert_equal(tensors_of(path), TENSORS)


@pytest.mark.parametrize("what", ["yacs.config.CfgNode", "easydict.EasyDict"])
def test_dicts_of_packages_that_are_not_installed(what, save, monkeypatch):
    """Written with a class of that name; the reader has none."""
    module, _, name = what.rpartition(".")
    stand_in = types.ModuleType(module)
    written = type(name, (dict,), {"__module__": module})
    setattr(stand_in, name, written)
    with monkeypatch.context() as patch:
        if "." in module:
            patch.setitem(sys.modules, module.partition(".")[0], stand_in)
        patch.setitem(sys.modules, module, stand_in)
        options = written(lr=0.1)
        options.frozen = True
        path = save({"model": in_torch(TENSORS), "cfg": options})
    assert_equal(tensors_of(path), TENSORS)


@pytest.mark.parametrize(
    "nest", ["state_dict", "model", "segmenter", "model.state_dict", "weights"]
)
def test_weights_in_containers(nest, save):
    content = in_torch(TENSORS)
    for name in reversed(nest.split(".")):
        content = {name: content, "best_accuracy": in_torch(np.asarray(0.5))}
    assert_equal(tensors_of(save(content)), TENSORS)


def test_parameters_that_were_kept_as_such(save):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Conv2d(3, 2, 1)
    found = tensors_of(save(layer.state_dict(keep_vars=True)))
    assert_equal(found, {k: v.numpy() for k, v in layer.state_dict().items()})


def test_a_moving_average_is_told_of_and_can_be_chosen(save):
    path = save({"model": in_torch(TENSORS), "model_ema": in_torch(OTHERS)})
    found = torch_files.read(path)
    assert_equal(found.tensors, TENSORS)
    assert found.beside == ("model_ema",)
    assert_equal(tensors_of(path, "model_ema"), OTHERS)
    assert torch_files.read(path, "model_ema").beside == ("model",)
    message = refused(path, "model_em")
    assert "known: model, model_ema; did you mean model_ema?" in message


def test_several_sets_of_which_none_is_the_usual_one(save):
    path = save({"student": in_torch(TENSORS), "teacher": in_torch(OTHERS)})
    assert f"student, teacher: name one, such as {path}#student" in refused(path)
    assert_equal(tensors_of(path, "teacher"), OTHERS)


def test_a_choice_where_there_is_none(save, tmp_path):
    assert "holds one set of weights: leave #ema" in refused(
        save(in_torch(TENSORS)), "ema"
    )
    path = tmp_path / "file.safetensors"
    torch_files.write_safetensors(path, TENSORS, {})
    assert "holds one set of weights: leave #ema" in refused(path, "ema")


def float8(torch):
    return {"conv.weight": torch.zeros(2).to(torch.float8_e4m3fn)}


REFUSED = {
    "float8": (float8, "conv.weight is stored as strided, float8_e4m3fn"),
    "numbers": (lambda torch: {0: torch.ones(2)}, "numbered (0), not named"),
    "a list": (lambda torch: [torch.ones(2)], "holds no weights"),
    "no tensors": (lambda torch: {"epoch": 3}, "holds no weights"),
    "arrays": (lambda torch: {"a.b": np.ones(2)}, "holds no weights"),
    "a module": (lambda torch: torch.nn.Linear(2, 3), "torch.nn.modules.linear.Linear"),
    "a stray": (lambda torch: {"a.b": torch.ones(2), "lr": 0.1}, "lr is no tensor"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_contents_that_are_refused(what, save):
    torch = pytest.importorskip("torch")
    content, message = REFUSED[what]
    assert message in refused(save(content(torch)))


def test_a_program_of_torchscript(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "network.pt"
    torch.jit.trace(torch.nn.Linear(2, 3), torch.ones(1, 2)).save(path)
    assert "is a TorchScript program, which is code: save its state_dict()" in refused(
        path
    )


def test_the_content_counts_and_not_the_name(save, tmp_path):
    assert_equal(tensors_of(save(in_torch(TENSORS), "pickle.safetensors")), TENSORS)
    path = tmp_path / "weights.bin"
    torch_files.write_safetensors(path, TENSORS, {})
    assert_equal(tensors_of(path), TENSORS)


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "dear")
    return buffer.getvalue()


def packed():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
FOREIGN = {
    "nothing": (b"", "is empty: fetch it again"),
    "a page": (b"\n<!DOCTYPE html><html>not found</html>", "is a web page"),
    "a bare page": (b"<html>not found</html>", "is a web page"),
    "a pointer": (POINTER, "is a pointer of Git LFS: fetch the file itself, with git"),
    "an index": (b'{"weight_map": {}}', "is JSON and holds no weights"),
    "HDF5": (b"\x89HDF\r\n\x1a\n....", "is an HDF5 file"),
    "MATLAB": (b"MATLAB 5.0 MAT-file", "is a MATLAB file, which is not read here"),
    "gzip": (gzip.compress(b"weights"), "is compressed with gzip: unpack it"),
    "tar": (packed(), "is a tar archive: unpack it and name the file"),
    "NumPy": (zipped("a.npy"), "is a NumPy archive"),
    "a letter": (zipped("letter.txt"), "but a zip archive of letter.txt"),
    "a photograph": (b"\xff\xd8\xff\xe0", "is no PyTorch checkpoint"),
}


@pytest.mark.parametrize("what", FOREIGN)
@pytest.mark.parametrize("name", ["file.pth", "file.pth.tar", "file"])
def test_files_that_are_something_else(what, name, tmp_path):
    pytest.importorskip("torch")
    content, message = FOREIGN[what]
    path = tmp_path / name
    path.write_bytes(content)
    assert message in refused(path)


def test_a_folder_of_weights(tmp_path):
    torch_files.write_safetensors(tmp_path / "model.safetensors", TENSORS, {})
    with pytest.raises(UserError, match="name a file of weights in it, such as .*/mod"):
        torch_files.locate(str(tmp_path))


def taken_from(source):
    return read_weights(str(source), architecture(VARIANT), shapes_of(VARIANT))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "net.encoder."]
)
def test_a_prefix_that_all_keys_share_is_taken_off_and_said(prefix, tmp_path):
    tensors = checkpoint_of(VARIANT)
    path = tmp_path / "file.safetensors"
    wrapped = {f"{prefix}{key}": array for key, array in tensors.items()}
    torch_files.write_safetensors(path, wrapped, {})
    taken = taken_from(path)
    assert taken.whole
    assert taken.arrays.keys() == shapes_of(VARIANT).keys()
    assert f"; {prefix} was taken off the keys" in str(taken)


def test_what_the_ports_own_trainer_saves(save):
    segmenter = {f"module.{k}": x for k, x in checkpoint_of(VARIANT).items()}
    path = save(
        {
            "segmenter": in_torch(segmenter),
            "epoch_start": 3,
            "best_val": np.float64(0.5),
        },
        "checkpoint.pth.tar",
    )
    assert taken_from(path).whole


def test_the_average_of_torchvisions_scripts(save):
    """With its counter, and the arguments of the script."""
    weights = checkpoint_of(VARIANT)
    average = {f"module.{k}": np.asarray(x + 1) for k, x in weights.items()}
    average["n_averaged"] = np.asarray(5)
    path = save(
        {
            "model": in_torch(weights),
            "model_ema": in_torch(average),
            "args": argparse.Namespace(model="resnet18", lr=0.1),
        }
    )
    plain, averaged = taken_from(path), taken_from(f"{path}#model_ema")
    assert f"; beside them is model_ema: take it as {path}#NAME" in str(plain)
    leaf = "decoder.classifier.bias"
    np.testing.assert_array_equal(averaged.arrays[leaf], plain.arrays[leaf] + 1)
    assert averaged.origin["file"] == f"{path}#model_ema"


def test_a_backbone_among_other_parts(tmp_path):
    tensors = {f"backbone.{k}": x for k, x in checkpoint_of(VARIANT).items()}
    path = tmp_path / "file.safetensors"
    torch_files.write_safetensors(path, {**tensors, "head.bias": np.ones(3)}, {})
    with pytest.raises(UserError, match=r"save those that begin with backbone\. alone"):
        taken_from(path)


def test_features_alone_keep_their_names(tmp_path):
    """All keys begin with "features.", and are known so."""
    tensors = {
        key: np.zeros(shape, np.float32)
        for key, shape in weight_keys("torchvision_mobilenet_v2").items()
        if key.startswith("features.")
    }
    path = tmp_path / "file.safetensors"
    torch_files.write_safetensors(path, tensors, {})
    variant = "light_mobilenet_v2"
    taken = read_weights(str(path), architecture(variant), shapes_of(variant))
    assert not taken.prefix
