import os
import tarfile
import zipfile

import pytest

from refinenet_jax.data.builders import archives
from refinenet_jax.errors import UserError


@pytest.fixture
def content(tmp_path):
    folder = tmp_path / "content"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.txt").write_text("hello")
    return folder


def make_zip(folder, archive):
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "a" / "b.txt", "a/b.txt")
    return archive


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip"])
def test_unpacks_once(tmp_path, content, pack_tar, name):
    pack = make_zip if name.endswith("zip") else pack_tar
    archive = pack(content, tmp_path / name)
    folder = archives.unpack(archive, tmp_path / "into")
    assert (folder / "a" / "b.txt").read_text() == "hello"
    (folder / "mark").touch()
    assert (archives.unpack(archive, tmp_path / "into") / "mark").exists()
    assert len(list((tmp_path / "into").iterdir())) == 1


def test_another_archive_of_the_same_name_is_unpacked_anew(tmp_path, content, pack_tar):
    archive = pack_tar(content, tmp_path / "x.tar")
    first = archives.unpack(archive, tmp_path / "into")
    (content / "a" / "b.txt").write_text("other")
    pack_tar(content, archive)
    second = archives.unpack(archive, tmp_path / "into")
    assert first != second and (second / "a" / "b.txt").read_text() == "other"


def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path, content, pack_tar):
    (content / "large").write_bytes(os.urandom(50_000))
    archive = pack_tar(content, tmp_path / "x.tgz")
    archive.write_bytes(archive.read_bytes()[:30_000])
    with pytest.raises(UserError, match=r"x\.tgz cannot be unpacked into .*complete"):
        archives.unpack(archive, tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_no_member_leaves_the_folder(tmp_path):
    (tmp_path / "evil").write_text("x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "evil", arcname="../../outside")
    with pytest.raises(UserError, match="cannot be unpacked"):
        archives.unpack(tmp_path / "x.tar", tmp_path / "deep" / "into")
    assert not (tmp_path / "outside").exists()
