"""Writes small data sets in the layout and the file formats of their authors.

Each function returns the label values it wrote: split -> name of the example -> uint16
[HEIGHT,WIDTH]. Every picture has every value.
"""

import contextlib
import pathlib
import tarfile
import zipfile
from collections.abc import Iterator, Sequence

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import PIL.Image
import scipy.io

# 960 pixels, room for the 895 values of NYUDv2.
HEIGHT, WIDTH = 24, 40

Label = npt.NDArray[np.uint16]
Labels = dict[str, dict[str, Label]]

# The folder of SUN RGB-D's authors, which all paths in their files begin with.
_SUN_ROOT = "/n/fs/sun3d/data/SUNRGBD"


def write_cityscapes(folder: pathlib.Path) -> Labels:
    """leftImg8bit/ and gtFine/ by split and city; test has dummy labels."""
    labels: Labels = {"train": {}, "val": {}, "test": {}}
    cities = [("train", "aachen"), ("train", "zurich"), ("val", "lindau")]
    for seed, (split, city) in enumerate([*cities, ("test", "berlin")]):
        name = f"{city}_{seed:06d}_000019"
        labels[split][name] = label = _label(seed, range(34))
        _write_image(
            folder / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", seed
        )
        start = folder / "gtFine" / split / city / f"{name}_gtFine"
        _write_grey(start.with_name(f"{start.name}_labelIds.png"), label)
        _write_grey(start.with_name(f"{start.name}_instanceIds.png"), label * 1000)
        _write_image(start.with_name(f"{start.name}_color.png"), seed)
        start.with_name(f"{start.name}_polygons.json").write_text("{}")
    (folder / "README").write_text("Cityscapes")
    del labels["test"]
    return labels


def write_ade20k(folder: pathlib.Path) -> Labels:
    """ADEChallengeData2016/ with grey label PNGs."""
    root = folder / "ADEChallengeData2016"
    labels: Labels = {"train": {}, "val": {}}
    for split, long_name, count in (("train", "training", 2), ("val", "validation", 1)):
        for seed in range(count):
            name = f"ADE_{split}_{seed + 1:08d}"
            labels[split][name] = _label(seed, range(151))
            _write_image(root / "images" / long_name / f"{name}.jpg", seed)
            path = root / "annotations" / long_name / f"{name}.png"
            _write_grey(path, labels[split][name])
    (root / "objectInfo150.txt").write_text("Idx\tRatio\n")
    return labels


def write_voc2010(
    folder: pathlib.Path, train: Sequence[str], val: Sequence[str]
) -> None:
    """VOCdevkit/VOC2010/ with images and the lists of the main task."""
    root = folder / "VOCdevkit" / "VOC2010"
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    for split, names in (("train", train), ("val", val)):
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            _write_image(root / "JPEGImages" / f"{name}.jpg", len(name))


def write_pascal_context(folder: pathlib.Path) -> Labels:
    """VOC 2010 and trainval/ with a LabelMap in a .mat for each image."""
    names = {"train": ["2008_000002", "2010_000003"], "val": ["2008_000033"]}
    write_voc2010(folder, names["train"], names["val"])
    labels: Labels = {"train": {}, "val": {}}
    for split, members in names.items():
        for seed, name in enumerate(members):
            labels[split][name] = _label(seed, range(460))
            _write_mat(
                folder / "trainval" / f"{name}.mat", LabelMap=labels[split][name]
            )
    return labels


def write_person_part(folder: pathlib.Path) -> Labels:
    """VOC 2010 and pascal_person_part/ with palette PNGs and lists of paths."""
    names = {"train": ["2008_000003", "2010_000003"], "val": ["2008_000008"]}
    write_voc2010(folder, [*names["train"], "2008_000099"], names["val"])
    labels: Labels = {"train": {}, "val": {}}
    for split, members in names.items():
        for seed, name in enumerate(members):
            labels[split][name] = _label(seed, range(7))
            path = folder / "pascal_person_part" / "pascal_person_part_gt"
            _write_palette(path / f"{name}.png", labels[split][name])
        write_person_part_list(folder, split, members)
    return labels


def write_person_part_list(
    folder: pathlib.Path, split: str, names: Sequence[str]
) -> None:
    """A list of pairs of paths."""
    lists = folder / "pascal_person_part" / "pascal_person_part_trainval_list"
    lists.mkdir(parents=True, exist_ok=True)
    lines = [
        f"/JPEGImages/{name}.jpg /pascal_person_part_gt/{name}.png\n" for name in names
    ]
    (lists / f"{split}.txt").write_text("".join(lines))


def write_nyudv2(
    folder: pathlib.Path, labels: npt.NDArray[np.uint16], images: npt.NDArray[np.uint8]
) -> None:
    """nyu_depth_v2_labeled.mat, version 7.3: axes reversed, all pictures in one array.

    Args:
      folder: where the file goes.
      labels: uint16 [N,H,W].
      images: uint8 [N,H,W,3].
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _new_hdf5(folder / "nyu_depth_v2_labeled.mat") as file:
        file["images"] = images.transpose(0, 3, 2, 1)
        file["labels"] = labels.transpose(0, 2, 1)
        file["depths"] = np.zeros((1, WIDTH, HEIGHT), np.float32)


def write_sunrgbd(folder: pathlib.Path) -> Labels:
    """SUNRGBD/ with a folder for each scene, and SUNRGBDtoolbox/ with three .mat."""
    scenes = [
        ("test", "kv1/NYUdata/NYU0001", "NYU0001.jpg"),
        ("train", "kv2/kinect2data/000002_2014-05-26_rgbf000103-resize", "0000103.jpg"),
        ("train", "xtion/sun3ddata/brown_bm_1/1_000000_resize", "0000001.jpg"),
    ]
    labels: Labels = {"train": {}, "test": {}}
    for seed, (split, scene, file_name) in enumerate(scenes):
        label = _label(seed, range(38))
        labels[split][scene.replace("/", "_")] = label
        _write_image(folder / "SUNRGBD" / scene / "image" / file_name, seed)
    metadata = folder / "SUNRGBDtoolbox" / "Metadata"
    paths = [f"{_SUN_ROOT}/{scene}/image/{name}" for _, scene, name in scenes]
    _write_mat(metadata / "SUNRGBDMeta.mat", SUNRGBDMeta=_sun_meta(paths))
    in_order = [labels[split][s.replace("/", "_")] for split, s, _ in scenes]
    write_sunrgbd_labels(metadata / "SUNRGBD2Dseg.mat", in_order)
    lists = {
        # Some of the published paths end with a slash.
        f"all{split}": cells(
            [f"{_SUN_ROOT}/{s}/" for own, s, _ in scenes if own == split]
        )
        for split in ("train", "test")
    }
    _write_mat(folder / "SUNRGBDtoolbox/traintestSUNRGBD/allsplit.mat", **lists)
    return labels


def write_sunrgbd_labels(path: pathlib.Path, labels: Sequence[Label]) -> None:
    """SUNRGBD2Dseg.mat, version 7.3: a struct array, that is arrays of references."""
    with _new_hdf5(path) as file:
        struct = file.create_group("SUNRGBD2Dseg")
        seglabel = struct.create_dataset(
            "seglabel", (len(labels), 1), h5py.special_dtype(ref=h5py.Reference)
        )
        for index, label in enumerate(labels):
            file[f"#refs#/{index}"] = label.T.astype(np.uint8)
            seglabel[index, 0] = file[f"#refs#/{index}"].ref


def write_coco_stuff_10k(folder: pathlib.Path, values: Sequence[int]) -> Labels:
    """images/, annotations/ with S in a .mat for each image, and imageLists/."""
    labels: Labels = {"train": {}, "test": {}}
    numbers = {"train": [77, 113], "test": [1]}
    (folder / "imageLists").mkdir(parents=True)
    for split, members in numbers.items():
        names = [f"COCO_train2014_{number:012d}" for number in members]
        lines = "".join(f"{name}\n" for name in names)
        (folder / "imageLists" / f"{split}.txt").write_text(lines)
        for seed, name in enumerate(names):
            labels[split][name] = _label(seed, values)
            _write_image(folder / "images" / f"{name}.jpg", seed)
            path = folder / "annotations" / f"{name}.mat"
            # The authors' files hold more, as doubles and in cells.
            _write_mat(
                path,
                S=labels[split][name].astype(np.float64),
                names=cells(["unlabeled", "person"]),
            )
    return labels


def write_coco_stuff_164k(
    folder: pathlib.Path, values: Sequence[int], images: str, labels: str
) -> Labels:
    """Images and label PNGs in folders train2017 and val2017 below two folders."""
    written: Labels = {"train": {}, "val": {}}
    for split, numbers in (("train", [9, 25]), ("val", [139])):
        for number in numbers:
            name = f"{number:012d}"
            written[split][name] = _label(number, values)
            _write_image(folder / images / f"{split}2017" / f"{name}.jpg", number)
            path = folder / labels / f"{split}2017" / f"{name}.png"
            _write_grey(path, written[split][name])
    return written


def pack(source: pathlib.Path, archive: pathlib.Path, members: Sequence[str]) -> None:
    """Packs files and folders below source as a .zip, .tar or .tar.gz."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for member in members:
                for path in sorted((source / member).rglob("*")):
                    packed.write(path, path.relative_to(source))
        return
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as packed:
        for member in members:
            packed.add(source / member, arcname=member)


def _label(seed: int, values: Sequence[int]) -> Label:
    """All values and, in what room is left, some again; shuffled."""
    rng = np.random.default_rng(seed)
    room = rng.choice(values, HEIGHT * WIDTH - len(values))
    label = rng.permutation([*values, *room]).astype(np.uint16)
    return label.reshape(HEIGHT, WIDTH)


def _write_image(path: pathlib.Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3))
    assert cv2.imwrite(str(path), pixels.astype(np.uint8))


def _write_grey(path: pathlib.Path, label: Label) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = label.astype(np.uint8) if label.max() < 256 else label
    PIL.Image.fromarray(small).save(path)


def _write_palette(path: pathlib.Path, label: Label) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = PIL.Image.fromarray(label.astype(np.uint8))
    # Colours that differ from the ids, as in the authors' own files.
    picture.putpalette([(7 * i + c) % 256 for i in range(256) for c in (3, 5, 9)])
    picture.save(path)


def _write_mat(path: pathlib.Path, **variables: npt.NDArray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables, do_compression=True)


@contextlib.contextmanager
def _new_hdf5(path: pathlib.Path) -> Iterator[h5py.File]:
    """A file with the 512 bytes that MATLAB puts before the HDF5 data."""
    with h5py.File(path, "w", userblock_size=512) as file:
        yield file
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")


def cells(texts: Sequence[str]) -> npt.NDArray[np.object_]:
    """A cell array of texts, [1,N]."""
    cells = np.empty((1, len(texts)), object)
    cells[0] = texts
    return cells


def _sun_meta(paths: Sequence[str]) -> npt.NDArray[np.void]:
    """A struct array, [1,N], with a few of its fields."""
    fields = ["sequenceName", "rgbpath", "rgbname"]
    meta = np.empty((1, len(paths)), [(field, object) for field in fields])
    for place, path in enumerate(paths):
        meta[0, place] = (path[: path.index("/image/")], path, path.rpartition("/")[2])
    return meta
