"""Large TIFFs: peak memory and seconds of predicting them, and what windows lose.

    python benchmarks/large_pictures.py memory NETWORK IMAGES EDGE [EDGE ...]
    python benchmarks/large_pictures.py loss NETWORK IMAGES [WINDOW]

NETWORK is a workdir, or a variant, which then has random weights. `memory` makes a tiled
TIFF of EDGE × EDGE pixels from the pictures below IMAGES, in a folder that it removes,
and predicts it in a process of its own. `loss` predicts these pictures whole and in
windows of WINDOW pixels, and prints the share of pixels that are of another class.
"""

import resource
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import cv2
import jax
import numpy as np
import tifffile
from flax import nnx

from refinenet_jax import Segmenter, log, palettes
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.data.images import SUFFIXES, read_image
from refinenet_jax.inference.large import Windows
from refinenet_jax.models import VARIANTS, Architecture, RefineNet
from refinenet_jax.tuning import tune

_TILE = 512  # of the TIFFs
_DIFFERENT = 50  # tiles in them
_OVERLAP = 1 / 8  # of the windows of `memory`
_SHARES = (0.0, 0.5, 1.0)  # of the overlap that is blended


def network(name: str) -> Segmenter:
    """A workdir's, or one of random weights."""
    if name not in VARIANTS:
        return Segmenter.from_checkpoint(name)
    description = Architecture(name, 11)

    def create() -> RefineNet:
        return RefineNet(description, rngs=nnx.Rngs(0))

    graph, _ = nnx.split(nnx.eval_shape(create))
    made = nnx.merge(graph, jax.jit(lambda: nnx.split(create())[1])())
    names = tuple(f"class {number}" for number in range(11))
    return Segmenter(made, Metadata(description, names, palettes.distinct(11)))


def pictures(folder: str) -> list[np.ndarray]:
    """Those below a folder: uint8 [H,W,3] each."""
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    return [read_image(path) for path in paths[:_DIFFERENT]]


def write_tiff(path: Path, edge: int, folder: str) -> None:
    """A tiled TIFF whose tiles are the pictures, over and over."""
    tiles = [
        zlib.compress(cv2.resize(picture, (_TILE, _TILE)).tobytes(), level=1)
        for picture in pictures(folder)
    ]
    count = (-(-edge // _TILE)) ** 2
    tifffile.imwrite(
        path,
        (tiles[number * 7 % len(tiles)] for number in range(count)),
        shape=(edge, edge, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(_TILE, _TILE),
        compression="zlib",
        bigtiff=True,
    )


def peak_mebibytes() -> float:
    """Of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, source: str) -> None:
    """Predicts a TIFF and prints."""
    tune()
    segmenter = network(name)
    loaded, start = peak_mebibytes(), time.monotonic()
    target = Path(source).with_name("classes.tif")
    segmenter.predict_large(source, target, overlap=_OVERLAP)
    seconds = time.monotonic() - start
    with tifffile.TiffFile(target) as file:
        height, width = file.pages.first.shape
    print(
        f"| {height} × {width} | {loaded:.0f} | {peak_mebibytes():.0f} | {seconds:.0f} "
        f"| {height * width / seconds / 1e6:.2f} | {target.stat().st_size / 1e6:.0f} |"
    )


def memory(name: str, folder: str, *edges: str) -> None:
    """Prints a line for each size."""
    print(
        "| pixels | MiB, loaded | MiB, at its peak | seconds | megapixels a second "
        "| MB of classes |\n|---|---|---|---|---|---|"
    )
    for edge in edges:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "picture.tif"
            write_tiff(source, int(edge), folder)
            command = [sys.executable, __file__, "measure", name, str(source)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
        print(done.stdout.splitlines()[-1], flush=True)


def loss(name: str, folder: str, window: str = "256") -> None:
    """Prints a line for each overlap."""
    log.console.quiet = True  # the table alone
    segmenter, images = network(name), pictures(folder)
    wholes = [segmenter.predict(image) for image in images]
    heads = [f"{share:.0%} of it blended" for share in _SHARES]
    print(f"{len(images)} pictures in windows of {window}\n")
    print(f"| overlap | {' | '.join(heads)} |\n|---|{'---|' * len(_SHARES)}")
    size = int(window)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "classes.tif"
        for overlap in range(0, size, 64):
            cells = []
            for blend in _SHARES:
                options = {"overlap": overlap / size, "blend": blend}
                assert Windows.overlapping(size, **options).tile == size - overlap
                differing = []
                for image, whole in zip(images, wholes, strict=True):
                    segmenter.predict_large(image, target, window=size, **options)
                    differing.append(np.mean(tifffile.imread(target) != whole))
                cells.append(f"{np.mean(differing):.2%}")
            print(f"| {overlap} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    kinds = {"memory": memory, "measure": measure, "loss": loss}
    kinds[sys.argv[1]](*sys.argv[2:])
