import pytest

from refinenet_jax.data.builders.coco_stuff import CocoStuff164k
from tests.data import layouts
from tests.data.preparing import assert_became, download_from, prepared_labels, refusal

# Numbers of labels.txt that no pixel has.
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
CLASS_OF = {
    number: class_id
    for class_id, number in enumerate(n for n in range(1, 183) if n not in UNUSED)
}
TO_CLASS_10K = {0: 255} | CLASS_OF
TO_CLASS_164K = {number - 1: class_id for number, class_id in CLASS_OF.items()} | {
    255: 255
}
URLS = "http://images.cocodataset.org/zips/"


def write_10k(folder):
    return layouts.write_coco_stuff_10k(folder, list(TO_CLASS_10K))


def write_164k(folder, images="images", labels="annotations"):
    return layouts.write_coco_stuff_164k(folder, list(TO_CLASS_164K), images, labels)


def pack_164k(tmp_path):
    labels = write_164k(tmp_path / "unpacked")
    for top, archive, members in (
        ("images", "train2017.zip", ["train2017"]),
        ("images", "val2017.zip", ["val2017"]),
        ("annotations", "stuffthingmaps_trainval2017.zip", ["train2017", "val2017"]),
    ):
        source = tmp_path / "unpacked" / top
        layouts.pack(source, tmp_path / "packed" / archive, members)
    return labels, tmp_path / "packed"


def test_10k_folders(tmp_path):
    labels = write_10k(tmp_path / "given")
    found = prepared_labels("coco_stuff_10k", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS_10K)


def test_10k_archive(tmp_path):
    labels = write_10k(tmp_path / "unpacked")
    archive = tmp_path / "packed" / "cocostuff-10k-v1.1.zip"
    members = ["images", "annotations", "imageLists"]
    layouts.pack(tmp_path / "unpacked", archive, members)
    found = prepared_labels("coco_stuff_10k", archive.parent, tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS_10K)


def test_10k_empty_folder(tmp_path):
    message = refusal("coco_stuff_10k", tmp_path, tmp_path / "tfds")
    for part in (
        "config.data.manual_dir",
        "cocostuff-10k-v1.1.zip from http://calvin.inf.ed.ac.uk/",
    ):
        assert part in message


def test_10k_damaged_label(tmp_path):
    write_10k(tmp_path / "given")
    label = tmp_path / "given/annotations/COCO_train2014_000000000001.mat"
    label.write_bytes(label.read_bytes()[:200])
    message = refusal("coco_stuff_10k", tmp_path / "given", tmp_path / "tfds")
    assert f"{label} cannot be decoded" in message


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "annotations"),
        ("", "annotations"),
        ("", "stuffthingmaps"),
        ("", "stuffthingmaps_trainval2017"),
        ("", ""),
    ],
)
def test_164k_folders(tmp_path, images, labels):
    written = write_164k(tmp_path / "given", images, labels)
    found = prepared_labels("coco_stuff_164k", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, written, TO_CLASS_164K)


def test_164k_archives(tmp_path):
    labels, folder = pack_164k(tmp_path)
    found = prepared_labels("coco_stuff_164k", folder, tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS_164K)


def test_164k_download(tmp_path, monkeypatch):
    labels, folder = pack_164k(tmp_path)
    addresses = download_from(folder, monkeypatch)
    found = prepared_labels("coco_stuff_164k", "", tmp_path / "tfds")
    assert_became(found, labels, TO_CLASS_164K)
    assert addresses[:2] == [f"{URLS}train2017.zip", f"{URLS}val2017.zip"]
    assert len(addresses) == 3


@pytest.mark.parametrize(
    ("archive", "address"),
    [
        ("train2017.zip", URLS),
        ("val2017.zip", URLS),
        ("stuffthingmaps_trainval2017.zip", "http://calvin.inf.ed.ac.uk/"),
    ],
)
def test_164k_without_one_of_its_archives(tmp_path, archive, address):
    _, folder = pack_164k(tmp_path)
    (folder / archive).unlink()
    message = refusal("coco_stuff_164k", folder, tmp_path / "tfds")
    assert "config.data.manual_dir" in message
    assert f"{archive} from {address}" in message


def test_164k_files_of_other_programs_are_passed_over(tmp_path):
    written = write_164k(tmp_path / "given")
    label = tmp_path / "given/annotations/train2017/000000000009.png"
    label.with_stem(f"{label.stem}_labelTrainIds").write_bytes(label.read_bytes())
    found = prepared_labels("coco_stuff_164k", tmp_path / "given", tmp_path / "tfds")
    assert_became(found, written, TO_CLASS_164K)


def test_164k_missing_label(tmp_path):
    write_164k(tmp_path / "given")
    (tmp_path / "given/annotations/train2017/000000000009.png").unlink()
    message = refusal("coco_stuff_164k", tmp_path / "given", tmp_path / "tfds")
    assert "train2017/000000000009.jpg has no label" in message


def test_downloads_of_images_have_checksums():
    for archive, size in (("train2017", 19_336_861_798), ("val2017", 815_585_330)):
        info = CocoStuff164k.url_infos[f"{URLS}{archive}.zip"]
        assert info.size == size and len(info.checksum) == 64
