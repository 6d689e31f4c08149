import dataclasses

import pytest

from refinenet_jax.data.class_table import ClassTable
from refinenet_jax.data.doctor.diagnosis import diagnose, unlisted
from refinenet_jax.data.doctor.survey import Fault, Look, Survey
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import FolderLabels, Request

NAMES = ("sky", "road", "car")
TABLE = ClassTable(
    class_names=NAMES,
    palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    raw_to_class={0: 0, 1: 1, 2: 2, 255: 255},
    split_sizes={},
    archives=(),
    source="the authors",
)
OWN = Request(
    name="folder",
    data_dir="",
    manual_dir="pictures",
    damaged="stop",
    folder=FolderLabels("ids", 0, (255,), "", "classes.txt"),
)
CAMVID = dataclasses.replace(OWN, name="camvid")
ALL = {0: 900, 1: 900, 2: 900}


def survey(*pixels, split="train", images=None, faults=(), table=TABLE, seed=0):
    """Of images with these label values."""
    looks = [
        Look(f"{split}{i}.png", (60, 45), each, {}, False, bytes([seed, i]))
        for i, each in enumerate(pixels)
    ]
    total = len(looks) + len(faults) if images is None else images
    return Survey(split, total, None, table, looks, faults, [])


def told(surveys, request=OWN):
    return [(f.level, f.code, f.split) for f in diagnose(surveys, request)]


def both(*pixels, **keywords):
    return [
        survey(*pixels, split="train", seed=0, **keywords),
        survey(*pixels, split="val", seed=1, **keywords),
    ]


def test_health():
    assert told(both(ALL, ALL, ALL)) == []


def test_one_cause_one_finding():
    """Ids from 1: the last is unknown and the first never occurs."""
    shifted = {1: 900, 2: 900, 3: 900}
    assert told(both(shifted, shifted, shifted)) == [
        ("error", "shifted_up", "train, val")
    ]


def test_only_the_split_that_has_it_is_named():
    surveys = [survey(ALL, ALL, ALL), survey({0: 900, 9: 1800}, split="val", seed=1)]
    (finding,) = diagnose(surveys, OWN)
    assert (finding.split, finding.files) == ("val", ("val0.png",))


def test_beside_colours_the_values_of_grey_files_are_not_explained():
    fault = Fault("a.png", "colours_for_ids", "a.png has colours")
    found = told([survey({0: 900, 128: 1800}, faults=[fault])])
    assert found == [("error", "colours_for_ids", "train")]


def test_files_of_one_kind_are_one_finding():
    faults = [Fault(f"{i}.png", "jpeg_label", f"{i}.png is a JPEG") for i in range(9)]
    found = diagnose(
        [survey(ALL, faults=faults), survey(split="val", faults=faults)], OWN
    )
    (finding,) = found
    assert finding.split == "train, val"
    assert finding.message.startswith("18 of 19 images: 0.png is a JPEG; ")
    assert finding.files == tuple(f"{i}.png" for i in range(5))


@pytest.mark.parametrize("request_", [OWN, CAMVID])
@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "damaged",
        "jpeg_label",
        "colours_for_ids",
        "unknown_colours",
        "size_mismatch",
    ],
)
def test_every_kind_of_fault_has_a_remedy(kind, request_):
    finding = unlisted(DataError(kind, "a.png is bad"), ["train", "val"], request_)
    assert (finding.level, finding.split) == ("error", "train, val")
    assert finding.message.startswith("a.png is bad; ")
    own = request_.name == "folder"
    assert own or "config.data.folder" not in finding.message
    assert (
        diagnose([survey(faults=[Fault("a", kind, "bad")])], request_)[0].code == kind
    )


@pytest.mark.parametrize("scanned, level", [(20, "error"), (3, "warning")])
def test_a_few_images_of_many_prove_little(scanned, level):
    road = [{1: 2700}] * scanned
    assert told([survey(*road, images=500)]) == [(level, "one_class", "train")]
    void = [{255: 2700}] * scanned
    assert told([survey(*void, images=500)]) == [(level, "no_label_at_all", "train")]
    assert told([survey(*road)])[0][0] == "error"


def test_missing_classes():
    two = {0: 1800, 1: 900}
    surveys = both(two, two, two)
    assert told(surveys) == [
        ("warning", "missing_classes", "train"),
        ("note", "missing_classes", "val"),
    ]
    assert "car" in diagnose(surveys, OWN)[0].message
    # Fewer images than classes, or not all of them: no wonder.
    assert told([survey(two, two)]) == [("note", "missing_classes", "train")]
    assert told([survey(two, two, two, images=9)]) == []


def test_nearly_empty_labels():
    empty = {0: 1, 1: 1, 255: 2698}
    assert told([survey(ALL, ALL, empty)]) == [("warning", "near_empty", "train")]
    assert told([survey(ALL, empty, empty)]) == [("error", "near_empty", "train")]


def test_a_background_that_is_ignored():
    table = dataclasses.replace(
        TABLE, raw_to_class={0: 255, 1: 0, 2: 1, 3: 2, 255: 255}
    )
    request = dataclasses.replace(
        OWN, folder=dataclasses.replace(OWN.folder, offset=-1)
    )
    found = told([survey(ALL, ALL, ALL, table=table)], request)
    assert found == [("error", "zero_is_background", "train")]
    found = told([survey(ALL, ALL, ALL, table=table, images=9)], request)
    assert found == [("warning", "zero_is_background", "train")]
    little = {0: 100, 1: 1300, 2: 1300}  # a real void, and a rare last class
    found = told([survey(little, little, little, table=table)], request)
    assert found == [("warning", "missing_classes", "train")]


def test_copies():
    same = [survey(ALL, ALL, ALL), survey(ALL, ALL, ALL, split="val")]
    (finding,) = diagnose(same, OWN)
    assert (finding.level, finding.code) == ("error", "duplicate_across_splits")
    assert finding.files[0] == "train0.png = val0.png"
    # What others published stays as it is.
    assert told(same, CAMVID)[0][0] == "warning"

    twice = survey(ALL, ALL, ALL)
    twice.looks.append(dataclasses.replace(twice.looks[1], file="again.png"))
    (finding,) = diagnose([dataclasses.replace(twice, images=4)], OWN)
    assert (finding.level, finding.code) == ("warning", "duplicate")
    assert finding.files == ("train1.png = again.png",)


def test_notes():
    turned = survey(ALL, ALL, ALL)
    looks = [dataclasses.replace(look, turned=True) for look in turned.looks]
    turned = dataclasses.replace(turned, looks=looks, published=367)
    assert told([turned]) == [
        ("note", "exif", "train"),
        ("note", "published_size", "train"),
    ]
    assert told([dataclasses.replace(turned, images=367)]) == [
        ("note", "exif", "train")
    ]


def test_the_loss_that_a_data_set_asks_for():
    rare = {0: 1800, 1: 885, 2: 15}
    train, val = survey(rare, ALL, rare), survey(rare, split="val", seed=1)
    assert told([train, val]) == []  # 11% and 17%
    train = survey(rare, rare, rare)
    assert told([train, val]) == [("note", "rare_classes", "train")]
    (finding,) = diagnose([train, val], OWN)
    assert "1 of 3" in finding.message and "car 0.56%" in finding.message
    assert finding.message.endswith("set config.loss.lovasz=1")
    # A few of many say little.
    assert told([dataclasses.replace(train, images=9), val]) == []

    two = dataclasses.replace(
        TABLE,
        class_names=NAMES[:2],
        palette=TABLE.palette[:2],
        raw_to_class={0: 0, 1: 1},
    )
    (finding,) = diagnose([survey({0: 2673, 1: 27}, table=two)], OWN)
    assert finding.message.endswith("loss.cross_entropy=0 and config.loss.lovasz=1")


def test_labels_on_the_pixels_as_stored():
    found = survey(ALL, ALL, ALL)
    looks = [dataclasses.replace(x, turned=True) for x in found.looks]
    looks[1] = dataclasses.replace(looks[1], label_turned=True)
    found = dataclasses.replace(found, looks=looks)
    assert told([found]) == [("note", "exif", "train"), ("note", "exif_label", "train")]
    assert diagnose([found], OWN)[1].files == ("train1.png",)


def test_the_worst_comes_first():
    fault = Fault("a.png", "damaged", "a.png is damaged")
    skip = dataclasses.replace(OWN, damaged="skip")
    turned = survey({9: 2700}, faults=[fault])
    assert [level for level, *_ in told([turned], skip)] == ["error", "warning"]
