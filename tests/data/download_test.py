"""Downloads through TFDS from a server on this machine."""

import functools
import http.server
import threading

import pytest

from refinenet_jax.data import datasets
from refinenet_jax.data.builders import voc2012
from refinenet_jax.errors import UserError


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which its files can be had."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_voc_is_downloaded_unpacked_and_prepared(
    served, tmp_path, writer, pack_tar, monkeypatch
):
    folder, address = served
    writer.voc(tmp_path / "raw", ["a", "b"], ["c"])
    pack_tar(tmp_path / "raw", folder / voc2012.ARCHIVE)
    monkeypatch.setattr(voc2012, "ARCHIVE_URL", f"{address}/{voc2012.ARCHIVE}")
    place = {"data_dir": str(tmp_path / "prepared"), "manual_dir": ""}
    source = datasets.open_split("voc2012", "train", **place)
    assert len(source) == 2
    assert source[0]["image"][:2] == b"\xff\xd8"


def test_a_file_that_the_server_does_not_have(served, tmp_path, monkeypatch):
    _, address = served
    monkeypatch.setattr(voc2012, "ARCHIVE_URL", f"{address}/{voc2012.ARCHIVE}")
    with pytest.raises(UserError, match="config.data.manual_dir"):
        datasets.prepare("voc2012", data_dir=str(tmp_path / "data"), manual_dir="")
    assert not list((tmp_path / "data").glob("voc2012/1.*"))
