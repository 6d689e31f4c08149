"""What several processes do to open the same data."""

import shutil

import pytest

from refinenet_jax.assembly import data
from refinenet_jax.errors import UserError
from tests.data import ask
from tests.data.conftest import Writer
from tests.several import Several


@pytest.fixture
def looked(monkeypatch):
    """The folders that were looked at as a whole."""
    prepare, folders = data.prepare, []

    def note(request, report):
        folders.append(request.data_dir)
        return prepare(request, report)

    monkeypatch.setattr(data, "prepare", note)
    return folders


def test_one_process_looks_at_the_files_for_all(tmp_path, monkeypatch, looked):
    folder = Writer().camvid(tmp_path / "camvid")
    request = ask.request("camvid", data_dir=tmp_path / "tfds", manual_dir=folder)

    def open_and_count(index):
        [source] = data.open_request(request, "train")
        return len(source), data.class_pixels(source).tolist()

    one, *others = Several(3, monkeypatch).run(open_and_count)
    assert one[0] == 3
    assert others == [one, one]
    assert looked == [str(tmp_path / "tfds")]


def test_hosts_with_disks_of_their_own_must_have_the_same_files(
    tmp_path, monkeypatch, looked
):
    Writer().camvid(tmp_path / "0" / "camvid")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    Writer().camvid(tmp_path / "2" / "camvid", count=4)

    def open_on(host):
        return data.open_request(
            ask.request(
                "camvid",
                data_dir=tmp_path / str(host) / "tfds",
                manual_dir=tmp_path / str(host) / "camvid",
            ),
            "train",
        )

    several = Several(2, monkeypatch)
    [one], [other] = several.run(open_on)
    assert one.fingerprint == other.fingerprint
    assert sorted(looked) == [str(tmp_path / str(host) / "tfds") for host in (0, 1)]
    several.run(open_on)
    assert len(looked) == 3
    with pytest.raises(UserError, match="prepared from other files than process 0"):
        several.run(lambda index: open_on(2 * index))
