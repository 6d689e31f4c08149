"""A bucket on this machine: Google Cloud Storage as gcp-storage-emulator plays it.

    python tests/emulator.py PORT BUCKET

What ArrayRecord and TensorStore ask of the real one and it leaves out is added here:
the last bytes of an object, its generation, and conditions on that; and the last byte of
what is uploaded, which it takes off where it looks like the end of a line.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus

from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

BUCKET = "refinenet-test"


def start_bucket() -> Iterator[str]:
    """Starts the emulator in a process of its own; gives gs://BUCKET.

    The variables that lead gcsfs, ArrayRecord and TensorStore there are kept: each of
    them reads its own once.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ["STORAGE_EMULATOR_HOST"] = url
    os.environ["CLOUD_STORAGE_EMULATOR_ENDPOINT"] = url
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = url
    # Nobody asks for credentials where there are none, nor for kinds of buckets.
    os.environ["NO_GCE_CHECK"] = "true"
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    process = subprocess.Popen(
        [sys.executable, __file__, str(port), BUCKET],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield f"gs://{BUCKET}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError("the emulator does not answer")


def _generation(request, storage) -> int:
    """Of the object that is asked about; 0 where there is none."""
    name = request.params.get("object_id") or request.query.get("name", [""])[0]
    try:
        found = storage.get_file_obj(request.params["bucket_name"], name)
    except NotFound:
        return 0
    return int(found["generation"])


def _conditional(handle):
    def handle_if(request, response, storage, *arguments, **keywords):
        here = _generation(request, storage)
        wanted = request.query.get("ifGenerationMatch")
        known = request.query.get("ifGenerationNotMatch")
        if wanted and int(wanted[0]) != here:
            response.status = HTTPStatus.PRECONDITION_FAILED
        elif known and int(known[0]) == here:
            response.status = HTTPStatus.NOT_MODIFIED
        else:
            handle(request, response, storage, *arguments, **keywords)

    return handle_if


def _with_range(handle):
    def handle_range(request, response, storage, *arguments, **keywords):
        headers = request._request_handler.headers
        last = re.fullmatch(r"bytes=-(\d+)", headers.get("range", ""))
        generation = _generation(request, storage)
        if last and generation:
            names = request.params["bucket_name"], request.params["object_id"]
            start = max(len(storage.get_file(*names)) - int(last[1]), 0)
            headers.replace_header("range", f"bytes={start}-")
        response["x-goog-generation"] = str(generation)
        handle(request, response, storage, *arguments, **keywords)

    return handle_range


def parts_of(body: bytes) -> list[tuple[bytes, bytes]]:
    """Headers and content of the parts of a multipart message, byte for byte.

    Read as mail, a content that ends in a carriage return would lose it.
    """
    first, _, _ = body.partition(b"\n")
    end = b"\r\n" if first.endswith(b"\r") else b"\n"
    parts = (end + body).split(end + first.rstrip(b"\r"))[1:-1]
    split = [part.partition(end + end) for part in parts]
    return [(headers, content) for headers, _, content in split]


def _exactly(read_data):
    def read(request_handler, query):
        kind = request_handler.headers.get("Content-Type") or ""
        if not kind.startswith("multipart/related"):
            return read_data(request_handler, query)
        [(_, told), (headers, content)] = parts_of(
            server._read_raw_data(request_handler)
        )
        found = re.search(rb"content-type: *([^;\s]+)", headers, re.IGNORECASE)
        return {
            "meta": json.loads(told),
            "content": content,
            "content-type": found[1].decode() if found else None,
        }

    return read


if __name__ == "__main__":
    objects.download = _conditional(_with_range(objects.download))
    objects.insert = _conditional(objects.insert)
    objects.delete = _conditional(objects.delete)
    from gcp_storage_emulator import server  # takes what it answers with from there

    server._read_data = _exactly(server._read_data)
    server.create_server("127.0.0.1", int(sys.argv[1]), True, sys.argv[2]).run()
