"""A person's own folder of pictures, as real files, in every encoding people have."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 40, 56
CLASSES = ("field", "road", "house", "tree")
COLOURS = np.array([(0, 0, 0), (200, 30, 30), (30, 180, 60), (250, 240, 20)], np.uint8)
SIZES = {"train": 6, "val": 4}

Write = Callable[[Path, np.ndarray], None]


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """image uint8 [40,56,3], label uint8 [40,56] with areas of all four classes."""
    rng = np.random.default_rng(seed)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[24:, :] = 1
    for class_id in (2, 3):
        row, column = rng.integers(4, 18), 26 * (class_id - 2) + rng.integers(2, 10)
        label[row : row + 14, column : column + 15] = class_id
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3)) + COLOURS[label] // 2
    return image.astype(np.uint8), label


def border(label: np.ndarray) -> np.ndarray:
    """The label with 255 along the outlines of its areas."""
    label = label.copy()
    edge = cv2.morphologyEx(label, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    label[edge] = 255
    return label


def grey(path: Path, label: np.ndarray) -> None:
    Image.fromarray(label).save(path)


def palette(path: Path, label: np.ndarray) -> None:
    picture = Image.fromarray(label)
    picture.putpalette(vocs_palette().tobytes())
    picture.save(path)


def rgb(path: Path, label: np.ndarray) -> None:
    Image.fromarray(COLOURS[label]).save(path)


def vocs_palette() -> np.ndarray:
    """uint8 [256,3] of the VOC devkit, from its own formula."""
    index = np.arange(256)[:, None] >> np.arange(3)
    shifts = range(8)
    return sum((index >> 3 * i & 1) << 7 - i for i in shifts).astype(np.uint8)


def write_image(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_folder(
    root: Path,
    write: Write = grey,
    change: Callable[[np.ndarray], np.ndarray] = lambda label: label,
    classes: str = "\n".join(CLASSES),
) -> Path:
    """Writes images/ and labels/ of train and val; `change` spoils each label."""
    root.mkdir(parents=True)
    (root / "classes.txt").write_text(classes + "\n")
    seed = 0
    for split, size in SIZES.items():
        for index in range(size):
            image, label = scene(seed)
            write_image(root / f"images/{split}/{split}{index}.png", image)
            path = root / f"labels/{split}/{split}{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, change(label))
            seed += 1
    return root


def with_colours(names: tuple[str, ...], colours: np.ndarray) -> str:
    """Lines of a classes.txt."""
    rows = zip(names, colours.tolist(), strict=True)
    return "\n".join(f"{name} {' '.join(map(str, colour))}" for name, colour in rows)
