"""Pictures beyond memory: predicted window by window into a tiled TIFF.

A tile of the result is the middle of one window. What a window says within `margin` of
its borders counts for nothing, since it does not see what lies beyond, and in the first
`band` pixels of a tile it takes over smoothly from the window before. Along each axis:

    window n        | margin |          tile          |  band  | margin |
    window n + 1                             | margin |          tile          |  band  |

Each window is computed once. What it says of the tile to its right stays in memory, what
it says of the row of tiles below it waits on disk: memory depends neither on the width
nor on the height of the picture, as it would if rows of scores were kept, which take 2
GB for 512 rows of 50,000 pixels and 21 classes. A tile that is finished is on disk too:
after a kill two rows of windows at most are computed once more.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from etils import epath

from refinenet_jax import files, lock, log
from refinenet_jax.checkpoints.digests import digest_json
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.inference import tiff
from refinenet_jax.inference.finished import Finished
from refinenet_jax.inference.inputs import pixels_of
from refinenet_jax.inference.protocol import Shape
from refinenet_jax.pictures import Palette

# Windows begin at multiples of the networks' coarsest stride: each then has its features
# at the places where the whole picture has them.
_GRID = 32
_LONGEST_OVERVIEW = 2048
_MOST_REDUCED = 32  # divides every tile

# [H,W,C] → probabilities float32 [1,H',W',classes], where H' >= H.
Run = Callable[[np.ndarray], jax.Array]


class Pixels:
    """A picture that is in memory, [H,W,C]; used as `tiff.Tiff`."""

    georeference: tuple[tiff.Tag, ...] = ()

    def __init__(self, pixels: np.ndarray):
        self._pixels = pixels
        height, width, self.channels = pixels.shape
        self.shape: Shape = height, width
        self.dtype: np.dtype = pixels.dtype

    def window(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """A part that lies within the picture: [height,width,C]."""
        return self._pixels[top : top + height, left : left + width]


Picture = tiff.Tiff | Pixels


@contextlib.contextmanager
def opened(
    source: Any, window: int, kind: PictureKind = RGB
) -> Iterator[tuple[Picture, Any]]:
    """Opens a picture to be read window by window; only a TIFF of RGB stays on disk.

    source: see `inputs.pixels_of`; window: edge of the windows; kind: of the network.

    Gives the picture and what tells it from another one, ready for JSON.

    Raises:
        UserError, ValueError: as `inputs.pixels_of` and `tiff.opened`.
    """
    if kind == RGB and isinstance(source, str | os.PathLike):
        path = files.path(source)
        if tiff.is_tiff(path):
            state = files.states([path])[path]
            with files.on_disk(path) as file, tiff.opened(file, window) as picture:
                yield picture, dataclasses.asdict(state)
            return
    pixels = np.ascontiguousarray(pixels_of(source, kind))
    yield Pixels(pixels), xxhash.xxh3_128_hexdigest(pixels.data)


@dataclasses.dataclass(frozen=True)
class Windows:
    """How pictures are cut, in pixels.

    Attributes:
        size: edge of the windows, a multiple of 64.
        tile: edge of the tiles, a multiple of 64: the distance of two windows.
        band: in which one window takes over from the other; at most `tile`.
    """

    size: int
    tile: int
    band: int

    @classmethod
    def overlapping(cls, size: int, overlap: float, blend: float) -> "Windows":
        """Those nearest to what is asked for.

        Args:
            size: edge of the windows; rounded up.
            overlap: share of a window that the next one covers too, below 1.
            blend: share of the overlap that is the band. Of what remains, one half is
                the margin of the one window, one half of the other.

        Raises:
            ValueError: one of them cannot be.
        """
        if size < 1 or not 0 <= overlap < 1 or not 0 <= blend <= 1:
            raise ValueError(
                f"window={size} must be 1 or more, overlap={overlap} at least 0 and less "
                f"than 1, blend={blend} from 0 to 1"
            )
        step = 2 * _GRID
        size = -(-size // step) * step
        tile = min(max(round(size * (1 - overlap) / step), 1) * step, size)
        shared = size - tile
        margin = int(shared * (1 - blend) / 2) // _GRID * _GRID
        # Three windows never blend at one place of an axis.
        margin = max(margin, -(-(shared - tile) // step) * _GRID)
        return cls(size, tile, shared - 2 * margin)

    @property
    def margin(self) -> int:
        """What is seen at each border of a window and counts for nothing."""
        return (self.size - self.tile - self.band) // 2

    def count(self, length: int) -> int:
        """Tiles along an axis of so many pixels."""
        return -(-length // self.tile)

    def start(self, number: int, length: int) -> int:
        """Where the window of a tile begins; at the end of the axis they are no less."""
        last = -(-(length - self.size) // _GRID) * _GRID
        return max(0, min(number * self.tile - self.margin, last))

    def weights(self, number: int) -> np.ndarray:
        """Of a window in its tile and the band behind it: float32 [tile + band].

        At each place those of all windows sum to 1.
        """
        middles = (np.arange(self.band, dtype=np.float32) + 0.5) / max(self.band, 1)
        rising = 0.5 - 0.5 * np.cos(np.pi * middles)
        weights = np.ones(self.tile + self.band, np.float32)
        if number:
            weights[: self.band] = rising
        weights[self.tile :] = 1 - rising
        return weights


@dataclasses.dataclass(frozen=True)
class Overview:
    """A large picture and its classes, made smaller.

    Attributes:
        image: as it is read, [h,w,C]; means.
        label: uint8 [h,w] class ids of single pixels.
    """

    image: np.ndarray
    label: np.ndarray


def predict(
    picture: Picture,
    target: epath.Path,
    run: Run,
    windows: Windows,
    *,
    about: Any,
    palette: Palette,
    on_overview: Callable[[Overview], None],
) -> None:
    """Writes the class ids of a picture, going on where an earlier process ended.

    Until all tiles are finished these are in a folder beside the target.

    Args:
        picture: what is predicted.
        target: a TIFF.
        run: gives the probabilities of a window.
        windows: how the picture is cut.
        about: what the result depends on besides, ready for JSON: tiles that were
            finished with anything else are computed again.
        palette: a colour for each class id.
        on_overview: called before the target is written.

    Raises:
        UserError: the target cannot be written, the disk is full, the picture is
            damaged, or another process predicts it.
    """
    folder, name = _folder_of(target), target.stem
    about = digest_json([about, dataclasses.asdict(windows), picture.shape])
    with files.writing(target), contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        remedy = "wait for its end, or name another target"
        held = lock.hold(
            folder / "lock", f"predicting {name}", remedy=remedy, say=log.say
        )
        stack.enter_context(held)
        tiles = _Tiles(picture, windows, Finished(folder / "tiles", about))
        stack.callback(tiles.finished.close)
        _finish_tiles(tiles, run, folder / "below", name)
        on_overview(tiles.overview())
        shape, georeference = picture.shape, picture.georeference
        tiff.write_classes(
            target, tiles.deflated(), shape, windows.tile, palette, georeference
        )
        files.remove_folder(folder)


def _folder_of(target: epath.Path) -> epath.Path:
    """On disk, for what is not finished: beside the target, or for one in a bucket."""
    name = f"{target.name}.part"
    if files.in_bucket(target):
        return files.user_cache() / "parts" / digest_json(str(target)) / name
    return target.with_name(name)


def _finish_tiles(tiles: "_Tiles", run: Run, waiting: epath.Path, name: str) -> None:
    """Computes the tiles that are missing, row after row.

    waiting: a folder for what a row of windows says of the tiles below it.
    """
    rows, columns = tiles.counts
    done = len(tiles.finished)
    height, width = tiles.picture.shape
    log.say(
        f"{name}, {height} x {width} pixels, is predicted in {rows * columns} windows"
        + (f"; {done} are there already" if done else "")
    )
    files.remove_folder(waiting)
    if done == rows * columns:
        return
    waiting.mkdir()
    # The row above the first tile that is missing tells of its upper band.
    first_row = max(0, done // columns - 1)
    places = list(itertools.product(range(first_row, rows), range(columns)))
    with log.progress(name, rows * columns, done) as on_tile:
        right = None
        for (row, column), image in _ahead(tiles.image, places):
            below = waiting / str(column)
            above = np.fromfile(below, np.float32) if below.exists() else None
            classes, right, lower = tiles.classes(
                row, column, run(image), right if column else None, above
            )
            if row * columns + column >= done:
                tiles.finish(row, column, image, np.asarray(classes))
                on_tile()
            # Not by NumPy, which does not say that a disk is full.
            below.write_bytes(np.asarray(lower))
    files.remove_folder(waiting)


def _ahead(
    make: Callable[..., np.ndarray], places: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Each place with what is made of it; the next is made meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        coming = [pool.submit(make, *place) for place in places[:1]]
        for number, place in enumerate(places):
            made = coming.pop().result()
            coming += [pool.submit(make, *p) for p in places[number + 1 : number + 2]]
            yield place, made


@dataclasses.dataclass
class _Tiles:
    """The tiles of one picture."""

    picture: Picture
    windows: Windows
    finished: Finished

    @property
    def counts(self) -> Shape:
        """Rows and columns of them."""
        height, width = map(self.windows.count, self.picture.shape)
        return height, width

    def image(self, row: int, column: int) -> np.ndarray:
        """What the window of a tile sees: [h,w,C], h and w at most its size."""
        height, width = self.picture.shape
        size = self.windows.size
        top, left = self._corner(row, column)
        return self.picture.window(
            top, left, min(size, height - top), min(size, width - left)
        )

    def classes(
        self,
        row: int,
        column: int,
        shares: jax.Array,
        right: jax.Array | None,
        above: np.ndarray | None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Class ids of a tile, and what its window says of the next ones.

        Args:
            row: of the tile.
            column: likewise.
            shares: of its window, float32 [1,H,W,classes].
            right: what the window to the left said of it.
            above: what those above did, float32 of any shape.

        Returns:
            uint8 [tile,tile], what means nothing beyond the picture; float32
            [tile + band,band,classes] of the tile to the right, and
            [band,tile,classes] of the one below, both of them weighted.
        """
        tile, band = self.windows.tile, self.windows.band
        num_classes = shares.shape[-1]
        if right is None:
            right = jnp.zeros((tile + band, band, num_classes))
        if above is None:
            above = np.zeros(band * tile * num_classes, np.float32)
        top, left = self._corner(row, column)
        offset = np.array([row * tile - top, column * tile - left], np.int32)
        weights = self.windows.weights(row), self.windows.weights(column)
        above = above.reshape(band, tile, num_classes)
        return _blended(shares, offset, weights, right, above, tile=tile, band=band)

    def finish(
        self, row: int, column: int, image: np.ndarray, classes: np.ndarray
    ) -> None:
        """Records a tile, with what the overview shows of it."""
        tile = self.windows.tile
        height, width = self.picture.shape
        top, left = self._corner(row, column)
        down, across = row * tile, column * tile
        rows, columns = min(tile, height - down), min(tile, width - across)
        rest = (0, tile - rows), (0, tile - columns)
        classes = np.pad(classes[:rows, :columns], rest, mode="edge")
        seen = image[down - top :, across - left :][:rows, :columns]
        means = self._means(np.pad(seen, (*rest, (0, 0)), mode="edge"))
        middle = slice(self._reduction // 2, None, self._reduction)
        small = means.tobytes() + classes[middle, middle].tobytes()
        self.finished.append(small + zlib.compress(classes.tobytes()))

    def deflated(self) -> Iterator[bytes]:
        """The class ids of each tile."""
        image, label = self._small
        size = image.itemsize + label.itemsize
        return (record[size:] for record in self.finished)

    def overview(self) -> Overview:
        """Of the whole picture, when all tiles are finished."""
        edge = self.windows.tile // self._reduction
        rows, columns = self.counts
        shape = rows * edge, columns * edge
        image = np.empty((*shape, self.picture.channels), self.picture.dtype)
        label = np.empty(shape, np.uint8)
        in_record = np.dtype([("image", self._small[0]), ("label", self._small[1])])
        for number, record in enumerate(self.finished):
            row, column = (edge * place for place in divmod(number, columns))
            small = np.frombuffer(record, in_record, 1)[0]
            image[row : row + edge, column : column + edge] = small["image"]
            label[row : row + edge, column : column + edge] = small["label"]
        height, width = (-(-length // self._reduction) for length in self.picture.shape)
        return Overview(image[:height, :width], label[:height, :width])

    def _corner(self, row: int, column: int) -> Shape:
        """Of the window of a tile, in the picture."""
        top, left = (
            self.windows.start(number, length)
            for number, length in zip((row, column), self.picture.shape, strict=True)
        )
        return top, left

    @property
    def _reduction(self) -> int:
        """Pixels along an edge that are one in the overview."""
        wanted = max(self.picture.shape) / _LONGEST_OVERVIEW
        powers = (1, 2, 4, 8, 16, _MOST_REDUCED)
        return next((power for power in powers if power >= wanted), _MOST_REDUCED)

    @property
    def _small(self) -> tuple[np.dtype, np.dtype]:
        """What the overview has of a tile, first in its record: image and classes."""
        edge = self.windows.tile // self._reduction
        return (
            np.dtype((self.picture.dtype, (edge, edge, self.picture.channels))),
            np.dtype((np.uint8, (edge, edge))),
        )

    def _means(self, image: np.ndarray) -> np.ndarray:
        """Of a tile, [tile,tile,C], in the overview."""
        factor = self._reduction
        edge = self.windows.tile // factor
        cells = image.reshape(edge, factor, edge, factor, -1)
        means = cells.mean((1, 3), dtype=np.float32)
        return means if image.dtype.kind == "f" else np.rint(means).astype(image.dtype)


@functools.partial(jax.jit, static_argnames=("tile", "band"))
def _blended(
    shares: jax.Array,
    offset: jax.Array,
    weights: tuple[jax.Array, jax.Array],
    right: jax.Array,
    above: jax.Array,
    *,
    tile: int,
    band: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See `_Tiles.classes`; offset: int32 [2] of the tile in its window."""
    down, across = weights
    # What comes in again at the other side lies beyond the picture.
    placed = jnp.roll(shares[0], -offset, (0, 1))[: tile + band, : tile + band]
    weighted = placed * down[:, None, None] * across[None, :, None]
    weighted = weighted.at[:, :band].add(right)
    column = weighted[:, :tile].at[:band].add(above)
    classes = jnp.argmax(column[:tile], axis=-1).astype(jnp.uint8)
    return classes, weighted[:, tile:], column[tile:]
