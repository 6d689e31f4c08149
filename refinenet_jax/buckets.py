"""Google Cloud Storage, through gcsfs: what a bucket does otherwise than a disk.

A bucket has objects and no folders. An object appears whole when its upload ends, and is
replaced the same way; nothing is appended to one, and nothing is renamed.
"""

import functools
import logging
import os
from typing import Any

from etils import epath

from refinenet_jax.errors import UserError, first_line

PREFIX = "gs://"

_MOUNTS = epath.Path("/proc/mounts")

# Where TensorFlow is installed, epath would read buckets with it: seconds to import, and
# all the memory of the GPUs.
os.environ.setdefault("EPATH_USE_TF", "false")


def holds(name: str | os.PathLike[str]) -> bool:
    """Whether a path lies in a bucket."""
    return os.fspath(name).startswith(PREFIX)


@functools.cache
def check(bucket: str) -> None:
    """Asks a bucket for its first object, so that what is wrong shows at once.

    Raises:
        UserError: gcsfs is missing, or the bucket cannot be read.
    """
    is_folder(PREFIX + bucket)


def is_folder(path: str) -> bool:
    """Whether an object lies below a path.

    gcsfs's own `isdir` says no where it gets no answer.

    Raises:
        UserError: gcsfs is missing, or the bucket cannot be read.
    """
    bucket, _, folder = path.removeprefix(PREFIX).partition("/")
    question = {"prefix": f"{folder.rstrip('/')}/" if folder else "", "maxResults": 1}
    store = _store()
    try:
        found = store.call("GET", "b/{}/o", bucket, json_out=True, **question)
    except FileNotFoundError as error:
        raise UserError(
            f"there is no bucket {PREFIX}{bucket}: check its name"
        ) from error
    except Exception as error:  # gcsfs, aiohttp and google.auth each raise their own
        raise UserError(
            f"bucket {PREFIX}{bucket} cannot be read ({first_line(error)}): check its "
            "name, and that you may (gcloud auth application-default login)"
        ) from error
    return bool(found.get("items"))


def is_mounted(path: str) -> bool:
    """Whether an absolute path on Linux is within a bucket that FUSE shows as a folder."""
    kinds = {}
    if _MOUNTS.exists():
        for line in _MOUNTS.read_text().splitlines():
            _, where, kind = line.split()[:3]
            kinds[where.replace(r"\040", " ")] = kind
    above = [where for where in kinds if os.path.commonpath([path, where]) == where]
    return kinds.get(max(above, key=len, default="")) == "fuse.gcsfuse"


def files_below(folder: str) -> dict[str, dict[str, Any]]:
    """What gcsfs tells of every object below a folder, by its whole path."""
    found = _store().find(folder, detail=True)
    return {
        PREFIX + name: about for name, about in found.items() if not name.endswith("/")
    }


def matching(pattern: str) -> list[str]:
    """The paths that a pattern with *, ? and [] stands for, in order."""
    return sorted(PREFIX + name for name in _store().glob(pattern))


def upload(file: str, target: str) -> None:
    """Makes an object of a file on disk, in one piece; its MD5 is compared."""
    _store().put_file(file, target)


def download(source: str, file: str) -> None:
    """Makes a file on disk of an object; its MD5 is compared.

    Raises:
        OSError: there is none, or it cannot be read now.
    """
    try:
        _store().get_file(source, file)
    except OSError:
        raise
    except Exception as error:  # gcsfs, aiohttp and google.auth each raise their own
        raise OSError(first_line(error)) from error


def copy(source: str, target: str) -> None:
    """Makes an object of another one, within the store."""
    _store().cp_file(source, target)


def remove(names: list[str]) -> None:
    """Removes objects; one that is gone already is no error."""
    store = _store()
    for name in names:
        try:
            store.rm_file(name)
        except FileNotFoundError:
            continue


@functools.cache
def _store() -> Any:
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"paths that begin with {PREFIX} need gcsfs: pip install "
            "'refinenet_jax[gcs]'"
        ) from error
    # What fails is tried again, and then said in one line and not with a traceback.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # epath's own instance takes these too. Without a listing that is kept, what other
    # processes and TensorStore write is seen.
    options = {"use_listings_cache": False, "consistency": "md5"}
    fsspec.config.conf.setdefault("gs", {}).update(options)
    return fsspec.filesystem("gs", finalize_on_close=True)
