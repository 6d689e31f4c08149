"""A person's own folder, in every layout and encoding."""

import shutil

import numpy as np
import PIL.Image
import pytest

from refinenet_jax.data import datasets, images, preparation
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.conftest import WIDTH, label_values, write_image, write_label

NAMES = {"train": ["a", "b c", "d.e"], "val": ["v"]}
CLASSES = ["road", "traffic light", "sky"]
COLOURS = {"road": (128, 64, 128), "traffic light": (250, 170, 30), "sky": (0, 0, 9)}


def label_of(split, name):
    return label_values(sum(map(ord, split + name)), [0, 1, 2, 255])


def write_folder(
    root, layout="lists", write=None, classes=CLASSES, suffix="", names=NAMES
):
    """layout: lists, images/SPLIT or SPLIT/images; write: label file of an array."""
    for split, members in names.items():
        middle = {
            "lists": ("images", "labels"),
            "images/SPLIT": (f"images/{split}", f"labels/{split}"),
            "SPLIT/images": (f"{split}/images", f"{split}/labels"),
        }[layout]
        for number, name in enumerate(members):
            write_image(root / middle[0] / f"{name}.png", number)
            path = root / middle[1] / f"{name}{suffix}.png"
            label = label_of(split, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            if write is None:
                write_label(path, label, palette=False)
            else:
                write(path, label)
        if layout == "lists":
            (root / f"{split}.txt").write_text("\n".join(members) + "\n")
    (root / "classes.txt").write_text("\n".join(classes) + "\n")
    return root


def write_colours(path, label):
    table = np.zeros((256, 3), np.uint8)
    table[:3] = list(COLOURS.values())
    table[255] = (255, 255, 255)
    PIL.Image.fromarray(table[label]).save(path)


def open_split(root, tmp_path, split="train", **options):
    return ask.open_split(
        "folder", split, data_dir=tmp_path / "tfds", manual_dir=root, **options
    )


def assert_holds(source, split="train", expected=label_of):
    assert len(source) == len(NAMES[split])
    assert sorted(source[i]["name"] for i in range(len(source))) == NAMES[split]
    for index in range(len(source)):
        label = images.decode_label(source[index]["label"], "")
        name = source[index]["name"]
        np.testing.assert_array_equal(label, expected(split, name))


@pytest.mark.parametrize("layout", ["lists", "images/SPLIT", "SPLIT/images"])
def test_layouts(tmp_path, layout):
    root = write_folder(tmp_path / "own", layout)
    for split in ("train", "val"):
        assert_holds(open_split(root, tmp_path, split), split)
    dataset = ask.lookup("folder", manual_dir=root)
    assert dataset.class_names == tuple(CLASSES)
    assert dataset.palette == ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    assert dataset.splits == ()  # the folder decides


def test_lists_may_name_files_with_their_ending_and_folders(tmp_path):
    root = write_folder(tmp_path / "own", names={"train": ["city/a"], "val": ["x/y/b"]})
    (root / "train.txt").write_text("city/a.png\n\n")
    source = open_split(root, tmp_path)
    assert source[0]["name"] == "city/a"
    label = images.decode_label(source[0]["label"], "")
    np.testing.assert_array_equal(label, label_of("train", "city/a"))


def test_palette_files(tmp_path):
    write = lambda path, label: write_label(path, label, palette=True)
    assert_holds(open_split(write_folder(tmp_path / "own", write=write), tmp_path))


@pytest.mark.parametrize(
    "form",
    ["{0} {1} {2} {3}", "{0},{1},{2},{3}", "{0}\t{1}\t{2}\t{3}", "{0}:{1},{2},{3}::"],
)
def test_colours(tmp_path, form):
    lines = [form.format(name, *colour) for name, colour in COLOURS.items()]
    root = write_folder(
        tmp_path / "own",
        write=write_colours,
        classes=["# CVAT", *lines, "ignore 255 255 255"],
    )
    assert_holds(open_split(root, tmp_path, encoding="colours"))
    dataset = ask.lookup("folder", manual_dir=root, encoding="colours")
    assert dataset.class_names == tuple(COLOURS)
    assert dataset.palette == tuple(COLOURS.values())


def test_a_colour_that_is_not_listed(tmp_path):
    lines = [f"{name} {r} {g} {b}" for name, (r, g, b) in COLOURS.items()]
    root = write_folder(tmp_path / "own", write=write_colours, classes=lines)
    with pytest.raises(
        images.DataError, match=r"not list: \(255, 255, 255\);"
    ) as caught:
        open_split(root, tmp_path, encoding="colours")
    assert caught.value.kind == "unknown_colours"
    assert "'ignore'" in str(caught.value)


def test_a_class_without_a_colour(tmp_path):
    root = write_folder(tmp_path / "own", write=write_colours)
    with pytest.raises(UserError, match=r"'road' has no colour.*road 128 64 128"):
        open_split(root, tmp_path, encoding="colours")


def test_offset_and_ignored_values(tmp_path):
    """1..3 are the classes, 0 and 200 do not count."""

    def write(path, label):
        raw = np.where(label == 255, 0, label + 1)
        raw[0, :5] = 200
        write_label(path, raw.astype(np.uint8), palette=False)

    def expected(split, name):
        label = label_of(split, name).copy()
        label[0, :5] = 255
        return label

    root = write_folder(tmp_path / "own", write=write)
    source = open_split(root, tmp_path, offset=-1, ignore=(200,))
    assert_holds(source, expected=expected)


def test_a_suffix(tmp_path):
    root = write_folder(tmp_path / "own", suffix="_mask")
    assert_holds(open_split(root, tmp_path, suffix="_mask"))
    with pytest.raises(
        UserError, match=r"a\.png has no label: expected .*labels/a\.png"
    ):
        open_split(root, tmp_path)


def test_classes_elsewhere(tmp_path):
    root = write_folder(tmp_path / "own")
    (root / "classes.txt").rename(tmp_path / "names")
    assert_holds(open_split(root, tmp_path, classes=str(tmp_path / "names")))
    with pytest.raises(UserError, match=r"classes\.txt is missing: write the name"):
        open_split(root, tmp_path)


def test_two_folders_and_two_readings_are_prepared_apart(tmp_path):
    one = write_folder(tmp_path / "one")
    other = write_folder(tmp_path / "other")
    write_label(other / "labels" / "a.png", np.ones((20, 30), np.uint8), palette=False)
    first = open_split(one, tmp_path)
    second = open_split(other, tmp_path)
    third = open_split(one, tmp_path, ignore=(255, 2))
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3
    for source, classes in ((first, 3), (second, 3), (third, 2)):
        present = source.class_pixels(ask.Listener()).any(axis=0)
        assert present[:3].sum() == classes
    assert len(list((tmp_path / "tfds" / "folder").iterdir())) == 3


def test_a_mended_label_is_taken_up(tmp_path):
    root = write_folder(tmp_path / "own")
    open_split(root, tmp_path)
    write_label(root / "labels" / "v.png", np.ones((20, 30), np.uint8), palette=False)
    source = open_split(root, tmp_path, "val")
    assert np.all(images.decode_label(source[0]["label"], "") == 1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("drawn_on", ["upright", "stored"])
def test_turned_photographs(tmp_path, orientation, drawn_on):
    """They are upright, as in prediction, whatever the label was drawn on."""
    root = write_folder(tmp_path / "own")
    path = root / "images" / "a.png"
    picture = PIL.Image.open(path)
    exif = picture.getexif()
    exif[0x0112] = orientation
    stored = np.array(picture)
    picture.save(path, exif=exif)
    upright = images.turn_upright(stored, orientation)
    drawn = upright if drawn_on == "upright" else stored
    label = label_values(7, [0, 1, 2])
    if drawn.shape[1] != WIDTH:
        label = np.ascontiguousarray(label.T)
    write_label(root / "labels" / "a.png", label, palette=False)
    example = open_split(root, tmp_path)[0]
    assert example["name"] == "a"
    # Where the size does not tell, the label is taken to be upright.
    if drawn_on == "stored" and orientation in (6, 8):
        label = images.turn_upright(label, orientation)
    np.testing.assert_array_equal(images.decode_image(example["image"], ""), upright)
    np.testing.assert_array_equal(images.decode_label(example["label"], ""), label)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["road"], "fewer than two classes"),
        (["road", "road"], "line 'road' is no new class"),
        (["road 1 2 3", "sky 256 0 0"], "three numbers 0..255"),
    ],
)
def test_wrong_lists_of_classes(tmp_path, lines, message):
    root = write_folder(tmp_path / "own", classes=lines)
    with pytest.raises(UserError, match=message):
        ask.lookup("folder", manual_dir=root)


def test_no_split(tmp_path):
    (tmp_path / "own/images").mkdir(parents=True)
    (tmp_path / "own/classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"has no split; expected images/ and labels/"):
        open_split(tmp_path / "own", tmp_path)
    (tmp_path / "own/images/a.dng").touch()
    with pytest.raises(UserError, match=r"; there are 1 \.dng: save them as JPEG or"):
        open_split(tmp_path / "own", tmp_path)
    with pytest.raises(UserError, match=r"manual_dir is empty: name the folder"):
        ask.lookup("folder")


MANY = [f"street{number}" for number in range(10)]


def test_splits_by_seed_are_written_down_and_stay(tmp_path):
    root = write_folder(tmp_path / "own", names={"train": MANY})
    (root / "train.txt").unlink()
    listener = ask.Listener()
    request = ask.request(
        "folder", data_dir=tmp_path / "tfds", manual_dir=root, val_share=0.3
    )
    prepared = preparation.prepare(request, listener)
    assert "they were drawn by seed 0 and written into" in listener.lines[-1]
    val = datasets.open_split(prepared, "val")
    chosen = sorted(val[i]["name"] for i in range(len(val)))
    lists = {split: (root / f"{split}.txt").read_text() for split in ("train", "val")}
    assert lists["val"].splitlines()[1:] == chosen and len(chosen) == 3
    assert lists["val"].startswith("# Drawn by seed 0, as there was no list: 3 of 10.")
    assert sorted(lists["train"].splitlines()[1:] + chosen) == MANY
    # Another seed or another image changes nothing that is written down.
    write_image(root / "images/new.png", 3)
    open_split(root, tmp_path, "val", val_share=0.5, split_seed=7)
    assert (root / "val.txt").read_text() == lists["val"]
    for split in lists:
        (root / f"{split}.txt").unlink()
    (root / "images/new.png").unlink()
    open_split(root, tmp_path, "val", val_share=0.3, split_seed=7)
    assert (root / "val.txt").read_text().splitlines()[1:] != chosen


def test_hints(tmp_path):
    root = write_folder(tmp_path / "own", suffix="_mask")
    with pytest.raises(
        UserError, match=r"set config.data.folder.suffix='_mask', which"
    ):
        open_split(root, tmp_path)
    (root / "labels/b c_mask.png").unlink()  # so that it would not help
    with pytest.raises(UserError) as caught:
        open_split(root, tmp_path)
    assert "suffix=" not in str(caught.value)
    (root / "val.txt").unlink()
    (root / "images/v.png").unlink()
    with pytest.raises(UserError, match=r"known: train; write the names .* val\.txt"):
        open_split(
            write_folder(tmp_path / "b", names={"train": ["a"]}), tmp_path, "val"
        )
    (root / "train.txt").write_text("photo\n")
    (root / "images/photo.dng").touch()
    with pytest.raises(UserError, match=r"does not hold; there are 1 \.dng: save them"):
        open_split(root, tmp_path)


def test_missing_files(tmp_path):
    root = write_folder(tmp_path / "own", "SPLIT/images")
    with pytest.raises(UserError, match="split 'test' of folder; known: train, val"):
        open_split(root, tmp_path, "test")
    shutil.rmtree(root / "val" / "labels")
    with pytest.raises(
        UserError, match=r"v\.png has no label: expected .*labels/v\.png"
    ):
        open_split(root, tmp_path, "val")
    shutil.rmtree(root / "val" / "images")
    (root / "val" / "images").mkdir()
    with pytest.raises(UserError, match="there are no images for .*val/labels"):
        open_split(root, tmp_path, "val")


def test_a_list_that_names_what_is_not_there(tmp_path):
    root = write_folder(tmp_path / "own")
    (root / "val.txt").write_text("v\nghost\n")
    with pytest.raises(
        UserError, match=r"val\.txt lists ghost, which .*images does not"
    ):
        open_split(root, tmp_path, "val")


def test_two_images_of_one_name(tmp_path):
    root = write_folder(tmp_path / "own")
    shutil.copy(root / "images" / "a.png", root / "images" / "a.jpg")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png differ in their ending"):
        open_split(root, tmp_path)


def test_a_builder_of_a_folder_can_be_pickled(tmp_path):
    import pickle

    root = write_folder(tmp_path / "own")
    request = ask.request("folder", data_dir=tmp_path / "tfds", manual_dir=root)
    found = pickle.loads(pickle.dumps(datasets.builder(request)))
    assert found.class_table.class_names == tuple(CLASSES)
