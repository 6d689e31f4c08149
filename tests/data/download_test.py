"""Downloads through TFDS from a server on this machine."""

import dataclasses
import functools
import hashlib
import http.server
import logging
import threading

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import download_manager

from refinenet_jax.data.builders import records, voc2012
from refinenet_jax.data.class_table import read_class_table
from refinenet_jax.errors import UserError
from tests.data import ask

DEVKIT, SBD = read_class_table("voc2012").archives


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder with an address, which the table of VOC gives as that of its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder)
    )
    table = read_class_table("voc2012")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def table_of(name):
            local = [
                dataclasses.replace(
                    archive,
                    url=f"http://127.0.0.1:{server.server_port}/{archive.file}",
                    md5=md5_of(folder / archive.file),
                )
                for archive in table.archives
            ]
            return dataclasses.replace(table, archives=tuple(local))

        monkeypatch.setattr(records, "read_class_table", table_of)
        yield folder
        server.shutdown()


def md5_of(path):
    return hashlib.md5(path.read_bytes()).hexdigest() if path.exists() else ""


def test_voc_is_downloaded_unpacked_and_prepared(served, tmp_path, writer, pack_tar):
    writer.voc(tmp_path / "raw", ["a", "b"], ["c"])
    pack_tar(tmp_path / "raw", served / DEVKIT.file)
    source = ask.open_split("voc2012", "train", data_dir=tmp_path / "prepared")
    assert len(source) == 2
    assert source[0]["image"][:2] == b"\xff\xd8"
    # SBD, which the server does not have, is missed only by who needs it.
    with pytest.raises(UserError, match=r"'train_aug' of voc2012 .* benchmark\.tgz"):
        ask.open_split("voc2012", "train_aug", data_dir=tmp_path / "prepared")
    # The same files, given by hand later, are recognised as the same.
    given = {"data_dir": tmp_path / "prepared", "manual_dir": tmp_path / "raw"}
    assert len(ask.open_split("voc2012", "val", **given)) == 1


def test_sbd_is_downloaded_too(served, tmp_path, writer, pack_tar):
    writer.voc(tmp_path / "raw", ["a", "b"], ["c"])
    pack_tar(tmp_path / "raw", served / DEVKIT.file)
    writer.sbd(tmp_path / "sbd", ["d"], ["e"])
    pack_tar(tmp_path / "sbd", served / SBD.file)
    source = ask.open_split("voc2012", "train_aug", data_dir=tmp_path / "prepared")
    assert {source[i]["name"] for i in range(len(source))} == {"a", "b", "d", "e"}


def test_a_file_that_the_server_does_not_have(served, tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.manual_dir"):
        ask.prepare("voc2012", data_dir=tmp_path / "data")
    assert not list((tmp_path / "data").glob("voc2012/1.*"))


def test_another_content_than_published(
    served, tmp_path, writer, pack_tar, monkeypatch
):
    writer.voc(tmp_path / "raw", ["a"], ["c"])
    pack_tar(tmp_path / "raw", served / DEVKIT.file)
    monkeypatch.setitem(globals(), "md5_of", lambda path: DEVKIT.md5)
    with pytest.raises(
        UserError, match=rf"has MD5 [0-9a-f]{{32}}, not {DEVKIT.md5} as"
    ):
        ask.prepare("voc2012", data_dir=tmp_path / "data")


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionError("host not found\nmore"),
        tfds.download.DownloadError("refused"),
        download_manager.NonMatchingChecksumError("wrong checksum:\nExpected"),
    ],
)
def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch, caplog, failure):
    def download(self, url):
        logging.getLogger("urllib3.connectionpool").warning("Retrying")
        raise failure

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    with pytest.raises(
        UserError, match=r"voc2012 could not be downloaded \(.*\): downl"
    ):
        ask.prepare("voc2012", data_dir=tmp_path)
    assert not (tmp_path / "voc2012" / "1.1.0").exists()
    assert "Retrying" not in caplog.text


def test_what_needs_a_login_is_not_tried(tmp_path):
    with pytest.raises(UserError) as caught:
        ask.prepare("cityscapes", data_dir=tmp_path)
    for part in ("gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip", "https://"):
        assert part in str(caught.value)
    assert "manual_dir" in str(caught.value)


def test_vocs_download_has_a_checksum():
    info = voc2012.Voc2012.url_infos[DEVKIT.url]
    assert info.size == 1_999_639_040
    assert info.checksum.startswith("e14f7632") and info.checksum.endswith("763bcb")
