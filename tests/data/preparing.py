"""Prepares a data set and compares what it became with what was written."""

import pathlib

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow_datasets as tfds

from refinenet_jax.data import images
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.layouts import Labels

Examples = dict[str, dict[str, npt.NDArray[np.uint8]]]


def prepared_labels(
    name: str, manual_dir: pathlib.Path | str, data_dir: pathlib.Path
) -> Examples:
    """Prepares a data set: split -> name -> class ids, uint8 [H,W]."""
    where = {"manual_dir": manual_dir, "data_dir": data_dir}
    builder = ask.prepare(name, **where)
    return {
        split: _labels_of(ask.open_split(name, split, **where))
        for split in builder.info.splits
    }


def _labels_of(source) -> dict[str, npt.NDArray[np.uint8]]:
    labels = {}
    for index in range(len(source)):
        example = source[index]
        image = images.decode_image(example["image"], example["name"])
        label = images.decode_label(example["label"], example["name"])
        assert image.shape == (*label.shape, 3)
        labels[example["name"]] = label
    assert len(labels) == len(source)
    return labels


def assert_became(found: Examples, written: Labels, to_class: dict[int, int]) -> None:
    """Splits and names are those that were written, and each value became its class."""
    lookup = np.full(max(to_class) + 1, -1)
    lookup[list(to_class)] = list(to_class.values())
    names = {split: set(labels) for split, labels in written.items()}
    assert {split: set(labels) for split, labels in found.items()} == names
    for split, labels in written.items():
        for name, raw in labels.items():
            assert set(np.unique(raw).tolist()) == set(to_class)
            np.testing.assert_array_equal(found[split][name], lookup[raw])


def refusal(name: str, manual_dir: pathlib.Path | str, data_dir: pathlib.Path) -> str:
    """The message with which a data set is refused."""
    with pytest.raises(UserError) as caught:
        ask.prepare(name, manual_dir=manual_dir, data_dir=data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def download_from(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets TFDS find files in place of a network; the addresses it asks for."""
    addresses: list[str] = []

    def download(self, address):
        addresses.append(address)
        return folder / address.rpartition("/")[2]

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    return addresses
