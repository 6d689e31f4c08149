"""Labels as tools draw them, beside what is known of each shape."""

import base64
import io
import json

import numpy as np
import PIL.Image
import pytest

from refinenet_jax.data import images
from refinenet_jax.data.builders import coco_json, label_studio, labelme
from refinenet_jax.data.builders.drawn import Names
from refinenet_jax.data.builders.examples import Pair
from refinenet_jax.data.images import DataError
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.conftest import write_image

HEIGHT, WIDTH = 20, 30
NAMES = Names({"background": 0, "cat": 1, "dog": 2}, "classes.txt")
WITHOUT = Names({"cat": 0, "dog": 1}, "classes.txt")
SQUARE = [[4, 5], [10, 5], [10, 12], [4, 12]]


def expected(*areas, unlabelled=0):
    """areas: (rows, columns, class id)."""
    label = np.full((HEIGHT, WIDTH), unlabelled, np.uint8)
    for rows, columns, class_id in areas:
        label[rows, columns] = class_id
    return label


def shape(label="cat", points=SQUARE, shape_type="polygon", **more):
    return {"label": label, "points": points, "shape_type": shape_type, **more}


def write_labelme(path, *shapes, **more):
    found = {"shapes": shapes, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def png(mask):
    file = io.BytesIO()
    PIL.Image.fromarray(mask).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_labelme_by_hand(tmp_path):
    mask = np.zeros((3, 4), np.bool_)
    mask[1, 1:] = True
    path = write_labelme(
        tmp_path / "a.json",
        shape(),
        shape("dog", [[8, 10], [20, 15]], "rectangle"),
        shape("__ignore__", [[22, 2], [25, 4]], "mask", mask=png(mask)),
    )
    label = labelme.read_label(path, NAMES)
    wanted = expected(
        (slice(5, 13), slice(4, 11), 1),  # with its outline, as LabelMe has it
        (slice(10, 16), slice(8, 21), 2),
        (3, slice(23, 26), 255),
    )
    np.testing.assert_array_equal(label, wanted)
    assert labelme.read_label(path, WITHOUT)[0, 0] == 255


def test_a_circle_of_labelme(tmp_path):
    path = write_labelme(
        tmp_path / "a.json", shape("dog", [[15, 10], [15, 4]], "circle")
    )
    label = labelme.read_label(path, NAMES)
    rows, columns = np.indices(label.shape)
    distance = np.hypot(rows - 10, columns - 15)
    assert np.all(label[distance < 5.4] == 2) and not np.any(label[distance > 6.6])


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"shapes": None}, "other_json", "is no JSON of LabelMe: it has no shapes"),
        ({"shapes": [3]}, "other_json", "shape 1 is no object"),
        ({"imageHeight": "20"}, "other_json", "a picture of 30 x '20'"),
        ({"imageHeight": 10**9}, "other_json", "a picture of 30 x 1000000000"),
        ({"shapes": [shape("cow")]}, "unknown_category", "the class 'cow', which cl"),
        ({"shapes": [shape(points=[[1, 1]] * 2)]}, "no_area", "polygon of 2 points"),
        ({"shapes": [shape(shape_type="line")]}, "no_area", "line of 4 points"),
        ({"shapes": [shape(points="abc")]}, "other_json", "its points are no pairs"),
        ({"shapes": [shape(points=[[1, 1], [40, 2], [3, 3]])]}, "outside", "30 x 20"),
        (
            {"shapes": [shape(points=[[1, 1], [float("nan"), 2], [3, 3]])]},
            "outside",
            "",
        ),
        (
            {"shapes": [shape(points=SQUARE[:2], shape_type="mask", mask="?")]},
            "other_json",
            "its mask is no picture",
        ),
    ],
)
def test_what_labelme_did_not_write(tmp_path, change, kind, says):
    path = write_labelme(tmp_path / "a.json", **change)
    with pytest.raises(DataError) as caught:
        labelme.read_label(path, NAMES)
    assert caught.value.kind == kind and says in str(caught.value)
    assert "a.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", '{"a":', "[" * 100_000, "\ud83d"])
def test_no_json(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(
        content.encode("utf-16" if content == "\ud83d" else "utf-8", "ignore")
    )
    with pytest.raises(DataError, match=r"a\.json is no JSON of LabelMe"):
        labelme.read_label(path, NAMES)


@pytest.mark.parametrize("place", ["labels", "images", "."])
def test_a_folder_of_labelme(tmp_path, place):
    root = tmp_path / "own"
    pictures = root if place == "." else root / "images"
    for number in range(5):
        write_image(pictures / f"{number}.png", number)
        write_labelme(root / place / f"{number}.json", shape())
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    source = ask.open_split(
        "folder",
        "train",
        data_dir=tmp_path / "tfds",
        manual_dir=root,
        encoding="labelme",
    )
    assert len(source) == 4
    label = images.decode_label(source[0]["label"], "")
    np.testing.assert_array_equal(label, expected((slice(5, 13), slice(4, 11), 1)))
    if place == "labels":
        (root / "train.txt").unlink()
        (root / "val.txt").unlink()
        with pytest.raises(
            UserError, match=r"set config\.data\.folder\.encoding=labelme"
        ):
            ask.open_split("folder", "train", data_dir=tmp_path / "x", manual_dir=root)


def annotation(segmentation, category=7, image=3, number=1):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
    }


def write_coco(path, *annotations, names=("a",), **more):
    found = {
        "images": [
            {"id": i, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(names, 3)
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}],
        "annotations": annotations,
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def random_masks(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        row, column = rng.integers(0, 12, 2)
        mask[row : row + rng.integers(2, 9), column : column + rng.integers(2, 18)] = 1
        yield mask | (rng.random(mask.shape) < 0.02)


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_as_pycocotools(tmp_path, compressed):
    pycoco = pytest.importorskip("pycocotools.mask")
    for mask in random_masks(8):
        encoded = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
        counts = encoded["counts"].decode()
        if not compressed:
            column = mask.T.ravel()
            edges = np.flatnonzero(np.diff(column)) + 1
            counts = np.diff([0, *edges, column.size]).tolist()
            counts = [0] * int(column[0]) + counts
        rle = {"counts": counts, "size": [HEIGHT, WIDTH]}
        path = write_coco(tmp_path / f"{hash(str(counts))}.json", annotation(rle))
        found = coco_json.open_annotations(path).instances(3, NAMES)
        np.testing.assert_array_equal(found, mask)


def test_polygons_small_over_large(tmp_path):
    pytest.importorskip("pycocotools")
    small, large = [4, 5, 10, 5, 10, 12, 4, 12], [0, 0, 20, 0, 20, 15, 0, 15]
    path = write_coco(
        tmp_path / "a.json", annotation([small]), annotation([large], 9, number=2)
    )
    found = coco_json.open_annotations(path).instances(3, NAMES)
    wanted = expected((slice(0, 15), slice(0, 20), 2), (slice(5, 12), slice(4, 10), 1))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (annotation([[0, 0, 99, 0, 3, 3]]), "outside", "corner outside the picture"),
        (annotation([[0, 0, 3, 3]]), "no_area", "fewer than three points"),
        (annotation([]), "no_area", "without a segmentation"),
        (annotation([[1, 2, 3]]), "other_json", "no pairs"),
        (annotation({"counts": [1, 2]}), "other_json", "RLE that is not of its size"),
        (annotation({"counts": "zzzz"}), "other_json", "RLE that is not of its size"),
        (annotation([[0, 0, 3, 0, 3, 3]], 8), "unknown_category", "of category 8"),
    ],
)
def test_what_coco_does_not_have(tmp_path, given, kind, says):
    pytest.importorskip("pycocotools")
    path = write_coco(tmp_path / "a.json", given)
    with pytest.raises(DataError) as caught:
        coco_json.open_annotations(path).instances(3, NAMES)
    assert caught.value.kind == kind and says in str(caught.value)


def test_a_folder_of_coco(tmp_path):
    root = tmp_path / "own"
    for split, names in (("train", ("a", "b")), ("val", ("c",))):
        rle = {"counts": [0, HEIGHT * 2, HEIGHT * (WIDTH - 2)]}
        marks = [annotation(rle, image=i) for i in range(3, 3 + len(names))]
        write_coco(root / f"annotations/instances_{split}.json", *marks, names=names)
        for name in names:
            write_image(root / f"images/{split}/{name}.png", 0)
    (root / "classes.txt").write_text("dog\ncat\n")
    where = {"data_dir": tmp_path / "tfds", "manual_dir": root, "encoding": "coco"}
    source = ask.open_split("folder", "train", **where)
    assert [source[i]["name"] for i in range(2)] == ["a", "b"]
    label = images.decode_label(source[1]["label"], "")
    np.testing.assert_array_equal(
        label, expected((slice(None), slice(2), 1), unlabelled=255)
    )
    (root / "classes.txt").write_text("dog\ncow\n")
    with pytest.raises(
        UserError, match=r"the class 'cat', which classes\.txt does not"
    ):
        ask.open_split("folder", "train", **where)
    (root / "annotations/instances_train.json").write_text('{"images": []}')
    with pytest.raises(UserError, match=r"is no JSON of COCO: it lacks 'categories'"):
        ask.open_split("folder", "train", **where)


def test_panoptic_segments(tmp_path):
    root = tmp_path / "own"
    segments = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    segments[5:9, :7] = (1, 2, 3)
    segments[9:, :7] = (200, 0, 0)
    number = 1 + 2 * 256 + 3 * 256**2
    for index, name in enumerate("abc"):
        write_image(root / f"images/{name}.png", index)
        path = root / f"panoptic/{name}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(segments).save(path)
    marks = [
        {
            "image_id": i,
            "file_name": f"{name}.png",
            "segments_info": [
                {"id": number, "category_id": 9},
                {"id": 200, "category_id": 7},
            ],
        }
        for i, name in enumerate("abc", 3)
    ]
    write_coco(root / "panoptic_all.json", *marks, names="abc")
    (root / "classes.txt").write_text("cat\ndog\n")
    where = {"data_dir": tmp_path / "tfds", "manual_dir": root, "encoding": "panoptic"}
    source = ask.open_split("folder", "val", **where)
    label = images.decode_label(source[0]["label"], "")
    wanted = expected(
        (slice(5, 9), slice(7), 1), (slice(9, None), slice(7), 0), unlabelled=255
    )
    np.testing.assert_array_equal(label, wanted)
    marks[0]["segments_info"].pop()
    path = write_coco(tmp_path / "less.json", *marks, names="abc")
    found = coco_json.open_annotations(path)
    with pytest.raises(DataError, match="has segment 200, not in .*less.json"):
        found.panoptic(3, root / "panoptic/a.png", NAMES)


def test_masks_of_cvat(tmp_path):
    root = tmp_path / "own"
    colours = {"background": (0, 0, 0), "cat": (250, 50, 50)}
    lines = [f"{name}:{','.join(map(str, c))}::" for name, c in colours.items()]
    (root / "SegmentationClass").mkdir(parents=True)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n" + "\n".join(lines)
    )
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[3:9, 4:20] = 1
    for index, name in enumerate("abcd"):
        write_image(root / f"JPEGImages/{name}.png", index)
        pixels = np.array(list(colours.values()), np.uint8)[label]
        PIL.Image.fromarray(pixels).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/default.txt").write_text("a\nb\nc\n")
    source = ask.open_split(
        "folder",
        "train",
        data_dir=tmp_path / "tfds",
        manual_dir=root,
        encoding="colours",
    )
    assert len(source) == 2  # of three that are listed, by seed
    found = images.decode_label(source[0]["label"], "")
    np.testing.assert_array_equal(found, label)


def test_masks_of_label_studio(tmp_path):
    root = tmp_path / "own"
    (root / "labels").mkdir(parents=True)

    def paint(task, annotation, tag, rows, number=0):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[rows] = 255
        name = f"task-{task}-annotation-{annotation}-by-me@x-tag-{tag}-{number}.png"
        PIL.Image.fromarray(mask).save(root / "labels" / name)

    tasks = []
    for task, name in enumerate("abc", 11):
        write_image(root / f"images/{name}.png", task)
        tasks.append(
            {"id": task, "data": {"image": f"/data/upload/1/12ab34cd-{name}.png"}}
        )
        paint(task, 5, "dog", slice(None))  # an older one, which does not count
        paint(task, 6, "cat", slice(2, 7))
        paint(task, 6, "dog", slice(5, 9), 1)
    (root / "project.json").write_text(json.dumps(tasks))
    (root / "classes.txt").write_text("cat\ndog\n")
    where = {
        "data_dir": tmp_path / "tfds",
        "manual_dir": root,
        "encoding": "label_studio",
    }
    source = ask.open_split("folder", "train", **where)
    assert len(source) == 2
    label = images.decode_label(source[0]["label"], "")
    wanted = expected(
        (slice(2, 7), slice(None), 0), (slice(5, 9), slice(None), 1), unlabelled=255
    )
    np.testing.assert_array_equal(label, wanted)
    paint(11, 6, "cow", slice(3), 2)
    paths = tuple(sorted((root / "labels").glob("task-11-*")))
    pair = Pair("a", root / "images/a.png", root / "project.json", 11, paths)
    with pytest.raises(DataError, match="the class 'cow'"):
        label_studio.read_label(pair, WITHOUT)
    (root / "project.json").write_text('{"a": 1}')
    with pytest.raises(UserError, match="is no JSON of Label Studio"):
        ask.open_split("folder", "train", **where)
