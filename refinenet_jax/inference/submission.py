"""Archives of predictions in the form that the servers of the data sets score."""

import dataclasses
import hashlib
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from refinenet_jax import files, pictures
from refinenet_jax.data.images import read_lines, refuse_special
from refinenet_jax.errors import UserError, listed
from refinenet_jax.inference import archives
from refinenet_jax.labels import IGNORE_LABEL

_SHOWN = 5  # ids that an error names before it says how many more there are
# What Pillow raises for a file that it cannot read; SyntaxError for damaged PNG chunks.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: one for each class id.
        palette: an RGB colour, 0..255, for each class id.
        raw_to_class: value in the data set's label files → class id, 255 = ignore.
    """

    names: tuple[str, ...]
    palette: pictures.Palette
    raw_to_class: Mapping[int, int]

    def raw_values(self) -> np.ndarray:
        """uint8 [classes]: the one value that stands for each class."""
        raw = {id: v for v, id in self.raw_to_class.items() if id != IGNORE_LABEL}
        return np.array([raw[id] for id in range(len(self.names))], np.uint8)


@dataclasses.dataclass(frozen=True)
class _Server:
    """What a server wants.

    Attributes:
        name: of an image without its ending; the first group is the id.
        example: of such a name, for people.
        folder: of the label maps in the archive.
        suffix: of the archive.
        size: width and height of every image; None: any.
        indexed: whether label maps are palette pictures.
    """

    name: re.Pattern[str]
    example: str
    folder: str
    suffix: str
    size: tuple[int, int] | None
    indexed: bool


_SERVERS = {
    # VOC2012 development kit, section "Segmentation": results as in VOCdevkit/results.
    "voc2012": _Server(
        re.compile(r"(\d{4}_\d{6})"),
        "2008_000006",
        "results/VOC2012/Segmentation/{competition}_test_cls/",
        ".tar.gz",
        None,
        True,
    ),
    # cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py: labelIds, found
    # by <city>_<sequence>_<frame>*.png.
    "cityscapes": _Server(
        re.compile(r"([a-z]+_\d{6}_\d{6})(?:_leftImg8bit)?"),
        "berlin_000000_000019_leftImg8bit",
        "",
        ".zip",
        (2048, 1024),
        False,
    ),
    # CSAILVision/sceneparsing: values 1..150, 0 being no class.
    "ade20k": _Server(
        re.compile(r"(ADE_(?:val|test)_\d{8})"),
        "ADE_test_00000001",
        "",
        ".zip",
        None,
        False,
    ),
}


class Submission:
    """The archive of some images for one server; making it checks all but the labels."""

    def __init__(
        self,
        server: str,
        classes: Classes,
        images: Sequence[epath.Path],
        *,
        class_names: Sequence[str],
        competition: str,
        ids_file: str,
    ):
        """Checks the images' names and sizes and the network's classes.

        Args:
            server: voc2012, cityscapes or ade20k.
            classes: of that data set.
            images: all that the archive is to hold.
            class_names: of the network.
            competition: of VOC: comp5, trained on its data alone, or comp6.
            ids_file: lists what is expected, an id on each line; "": nothing is.

        Raises:
            UserError: says what the server would refuse.
        """
        self._server = _SERVERS[server]
        self._classes = classes
        if tuple(class_names) != classes.names:
            raise UserError(
                f"config.predict.submission={server!r} needs a network with the "
                f"{len(classes.names)} classes of {server}, this one has "
                f"{len(class_names)} others: choose another --workdir"
            )
        self._images = self._by_id(images)
        if ids_file:
            self._compare(self._listed(files.path(ids_file)), ids_file)
        self._sizes = {id: self._size(path) for id, path in self._images.items()}
        self._folder = self._server.folder.format(competition=competition)
        self.file = f"submission_{server}{self._server.suffix}"

    def __len__(self) -> int:
        """How many label maps there are."""
        return len(self._images)

    def write(self, folder: epath.Path, on_label: Callable[[], None]) -> epath.Path:
        """Writes the archive, reads it back and then gives it its name.

        The same label maps make the same bytes.

        Args:
            folder: holds NAME.png, the class ids, for each image; the archive goes there.
            on_label: called twice for each label, to show progress.

        Raises:
            UserError: a label map is missing, has another size than its image or
                values that are no classes; the folder cannot be written to.
        """
        digests: dict[str, bytes] = {}
        with files.replacing(folder / self.file) as partial:
            with archives.packing(partial) as add:
                for id in self._images:
                    name, data = f"{self._folder}{id}.png", self._encoded(folder, id)
                    add(name, data)
                    digests[name] = hashlib.sha256(data).digest()
                    on_label()
            self._check(partial, digests, on_label)
        return folder / self.file

    def _by_id(self, images: Iterable[epath.Path]) -> dict[str, epath.Path]:
        """Sorted, so that the order of --images does not change the archive."""
        found: dict[str, epath.Path] = {}
        for path in images:
            other = found.setdefault(self._id(path.stem, str(path)), path)
            if other != path:
                raise UserError(f"{other} and {path} have the same id: leave one out")
        return dict(sorted(found.items()))

    def _id(self, name: str, where: str) -> str:
        match = self._server.name.fullmatch(name)
        if match is None:
            raise UserError(
                f"{where}: the server knows no {name!r}; names are like "
                f"{self._server.example}"
            )
        return match[1]

    def _listed(self, path: epath.Path) -> set[str]:
        names = [line.strip() for line in read_lines(path) if line.strip()]
        return {
            self._id(files.path(name).stem, f"config.predict.ids={path}")
            for name in names
        }

    def _compare(self, expected: set[str], ids_file: str) -> None:
        missing = sorted(expected - set(self._images))
        extra = sorted(set(self._images) - expected)
        wrong = [f"missing: {listed(missing, _SHOWN)}"] if missing else []
        wrong += [f"not expected: {listed(extra, _SHOWN)}"] if extra else []
        if wrong:
            raise UserError(
                f"--images is not what config.predict.ids={ids_file} lists; "
                f"{'; '.join(wrong)}"
            )

    def _size(self, path: epath.Path) -> tuple[int, int]:
        """Width and height of an image, from its header."""
        refuse_special(path)
        try:
            with path.open("rb") as file, Image.open(file) as picture:
                size = picture.size
        except _UNREADABLE as error:
            raise UserError(f"image {path} cannot be decoded: {error}") from error
        if self._server.size not in (None, size):
            raise UserError(
                f"{path} is {_text(size)} (width x height), the server takes "
                f"{_text(self._server.size or size)} only: predict the original"
            )
        return size

    def _encoded(self, folder: epath.Path, id: str) -> bytes:
        """The label map of an image as the server reads it."""
        image, size = self._images[id], self._sizes[id]
        path = folder / f"{image.stem}.png"
        again = "set config.predict.overwrite=True to predict it again"
        try:
            with path.open("rb") as file, Image.open(file) as picture:
                label = np.array(picture)
        except _UNREADABLE as error:
            raise UserError(f"label map {path} cannot be read: {again}") from error
        if label.shape != size[::-1]:
            raise UserError(
                f"{path} is {_text(label.shape[::-1])} (width x height) and {image} is "
                f"{_text(size)}: {again}"
            )
        if label.max() >= len(self._classes.names):
            raise UserError(f"{path} holds {label.max()}, which is no class: {again}")
        raw = self._classes.raw_values()[label]
        if self._server.indexed:
            return pictures.palette_png(raw, self._classes.palette)
        return pictures.encode(raw, "PNG")

    def _check(
        self,
        archive: epath.Path,
        digests: dict[str, bytes],
        on_label: Callable[[], None],
    ) -> None:
        """Reads an archive as the server would."""
        allowed = set(self._classes.raw_values().tolist())
        mode = "P" if self._server.indexed else "L"
        names = []
        for name, data in archives.members(archive):
            names.append(name)
            with Image.open(io.BytesIO(data)) as picture:
                right = (
                    hashlib.sha256(data).digest() == digests.get(name)
                    and picture.mode == mode
                    and picture.size == self._sizes[files.path(name).stem]
                    and set(np.unique(np.asarray(picture)).tolist()) <= allowed
                )
            if not right:
                raise UserError(f"{name} in {self.file} is damaged: check the disk")
            on_label()
        if names != list(digests):
            raise UserError(f"{self.file} lacks label maps: check the disk")


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
