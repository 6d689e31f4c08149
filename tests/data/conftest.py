"""Small copies of the data sets in the layout of their authors."""

import pathlib
import tarfile
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import scipy.io

from tests.data import ask

HEIGHT, WIDTH = 20, 30


def write_image(path: pathlib.Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3))
    assert cv2.imwrite(str(path), pixels.astype(np.uint8))


def label_values(seed: int, values: Sequence[int]) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array(values, np.uint8), (HEIGHT, WIDTH))


def write_label(
    path: pathlib.Path, label: npt.NDArray[np.uint8], palette: bool
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(label)
    if palette:
        # Colours that differ from the ids, as in VOC's own files.
        picture.putpalette([(7 * i + c) % 256 for i in range(256) for c in (3, 5, 9)])
    picture.save(path)


class Writer:
    """Writes data sets; `labels` remembers what was written, by image name."""

    def __init__(self) -> None:
        self.labels: dict[str, npt.NDArray[np.uint8]] = {}

    def voc(
        self, root: pathlib.Path, train: Sequence[str], val: Sequence[str]
    ) -> pathlib.Path:
        voc = root / "VOCdevkit" / "VOC2012"
        lists = voc / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        for seed, name in enumerate([*train, *val]):
            self.labels[name] = label_values(seed, [*range(21), 255])
            write_image(voc / "JPEGImages" / f"{name}.jpg", seed)
            label = voc / "SegmentationClass" / f"{name}.png"
            write_label(label, self.labels[name], palette=True)
        (lists / "train.txt").write_text("\n".join(train) + "\n")
        (lists / "val.txt").write_text("\n".join(val) + "\n")
        return voc

    def sbd(
        self, root: pathlib.Path, train: Sequence[str], val: Sequence[str]
    ) -> pathlib.Path:
        dataset = root / "benchmark_RELEASE" / "dataset"
        (dataset / "cls").mkdir(parents=True)
        for seed, name in enumerate([*train, *val], start=100):
            label = label_values(seed, range(21))
            self.labels.setdefault(name, label)
            write_image(dataset / "img" / f"{name}.jpg", seed)
            fields = {"Segmentation": label, "CategoriesPresent": np.unique(label)}
            scipy.io.savemat(dataset / "cls" / f"{name}.mat", {"GTcls": fields})
        (dataset / "train.txt").write_text("\n".join(train) + "\n")
        (dataset / "val.txt").write_text("\n".join(val) + "\n")
        return dataset

    def camvid(
        self,
        folder: pathlib.Path,
        splits: Sequence[str] = ("train", "val", "test"),
        suffix: str = ".png",
        bare: bool = False,
        count: int = 3,
    ) -> pathlib.Path:
        for number, split in enumerate(splits):
            lines = []
            for index in range(count):
                name = f"0001TP_{number}{index:03d}"
                self.labels[name] = label_values(10 * number + index, range(12))
                write_image(folder / split / f"{name}{suffix}", 10 * number + index)
                label = folder / f"{split}annot" / f"{name}.png"
                write_label(label, self.labels[name], palette=False)
                path = f"/SegNet/CamVid/{split}"
                line = f"{path}/{name}.png {path}annot/{name}.png"
                lines.append(name if bare else line)
            (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
        return folder


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def pack_tar():
    def pack(folder: pathlib.Path, archive: pathlib.Path) -> pathlib.Path:
        """Packs what is in a folder as the members of an archive."""
        mode = "w:gz" if archive.suffix == ".tgz" else "w"
        with tarfile.open(archive, mode) as content:
            for path in sorted(folder.iterdir()):
                content.add(path, arcname=path.name)
        return archive

    return pack


@pytest.fixture(scope="session")
def shapes_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data_dir with shapes prepared in it."""
    data_dir = str(tmp_path_factory.mktemp("shapes"))
    ask.prepare("shapes", data_dir=data_dir, manual_dir="")
    return data_dir
