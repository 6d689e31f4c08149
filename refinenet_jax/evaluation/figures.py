"""Figures of an evaluation, drawn without a display: uint8 [H,W,3] RGB each."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import Palette, colours

Interval = Sequence[float] | None

_DOTS_PER_INCH = 100
_BLUE, _GREY, _RED = "#3b6fb5", "#8a8a90", "#b3261e"
_MOST_CELLS_WITH_NUMBERS = 25  # classes; beyond, the numbers do not fit their cells
_WRONG = (214, 39, 40)


def class_bars(
    per_class_iou: Mapping[str, float | None], intervals: Mapping[str, Interval] | None
) -> np.ndarray:
    """IoU of each class with its interval, the highest first, absent classes last."""
    values = {n: -1.0 if iou is None else iou for n, iou in per_class_iou.items()}
    order = sorted(values, key=values.__getitem__)
    figure, axes = _figure(9, 1.2 + 0.26 * len(order))
    for place, name in enumerate(order):
        value = per_class_iou[name]
        if value is None:
            axes.text(1, place, "absent", va="center", color=_GREY, fontsize=9)
            continue
        axes.barh(place, 100 * value, color=_BLUE, height=0.7)
        low, high = (intervals and intervals[name]) or (value, value)
        if intervals:
            middle = [100 * (low + high) / 2]
            axes.errorbar(
                middle, [place], xerr=50 * (high - low), color="black", capsize=2.5
            )
        end = 100 * max(value, high) + 1
        axes.text(end, place, f"{100 * value:.1f}", va="center", fontsize=9)
    axes.set_yticks(range(len(order)))
    _label_classes(axes.set_yticklabels, order, 10)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(0, 109)
    axes.set_xticks(range(0, 101, 10))
    axes.set_xlabel("IoU, %" + (" (lines: 95% intervals)" if intervals else ""))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return _pixels(figure)


def confusion(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Where the pixels of each true class (row) went, in percent.

    matrix: int64 [C,C]; a row without pixels stays grey.
    """
    total = matrix.sum(axis=1, keepdims=True)
    share = np.ma.masked_invalid(
        np.divide(
            100.0 * matrix, total, out=np.full(matrix.shape, np.nan), where=total > 0
        )
    )
    number = len(class_names)
    numbered = number <= _MOST_CELLS_WITH_NUMBERS
    cell, font = (0.45, 10) if numbered else (0.17, 8)
    edge = max(3.0, cell * number)  # inches
    names = 0.009 * font * max(map(len, class_names))
    figure, axes = _figure(edge + names + 2, edge + names + 0.6)
    colours = matplotlib.colormaps["Blues"].with_extremes(bad="#dddddd")
    # By the square root, so that small shares are seen as well.
    picture = axes.imshow(share, norm=PowerNorm(0.5, 0, 100), cmap=colours)
    if numbered:
        _write_cells(axes, share)
    for ticks, labels in (
        (axes.set_xticks, axes.set_xticklabels),
        (axes.set_yticks, axes.set_yticklabels),
    ):
        ticks(range(number))
        _label_classes(labels, class_names, font)
    axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(
        picture, ax=axes, shrink=min(1.0, 5 / edge), ticks=(0, 1, 5, 10, 25, 50, 100)
    )
    bar.set_label("share of the true class, %")
    return _pixels(figure)


def trimap(curve: Mapping[str, Any], overall: Mapping[str, float]) -> np.ndarray:
    """Scores near true boundaries against the distance from them.

    curve: "radii", "mean_iou" and "pixel_accuracy" of eval.json's trimap; overall: the
    two over all pixels, which are drawn as level lines.
    """
    figure, axes = _figure(8, 4.2)
    for name, colour, mark in (
        ("mean_iou", _BLUE, "o"),
        ("pixel_accuracy", _RED, "s"),
    ):
        values = [np.nan if v is None else 100 * v for v in curve[name]]
        title = name.replace("_iou", " IoU").replace("_", " ")
        axes.plot(curve["radii"], values, color=colour, marker=mark, label=title)
        level = 100 * overall[name]
        label = f"{title} of all pixels"
        axes.axhline(level, color=colour, linestyle=":", label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(curve["radii"], labels=[str(radius) for radius in curve["radii"]])
    axes.set_xlabel("pixels at most so far from a true boundary")
    axes.set_ylabel("%")
    axes.set_ylim(0, 100)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return _pixels(figure)


def example(
    image: np.ndarray,
    label: np.ndarray,
    prediction: np.ndarray,
    class_names: Sequence[str],
    palette: Palette,
) -> np.ndarray:
    """Image, truth, prediction and errors side by side, with the colours explained.

    image: uint8 [h,w,3]; label, prediction: uint8 [h,w], 255 = ignore.
    """
    found = set(np.unique(label)) | set(np.unique(prediction))
    classes = sorted(found - {IGNORE_LABEL})
    height, width = label.shape
    cell = 2.8 * min(1.0, 2 * width / height)  # inches; upright images are narrower
    longest = max((len(class_names[i]) for i in classes), default=0)
    columns = max(1, int(4 * cell / (0.7 + 0.075 * longest)))
    rows = -(-len(classes) // columns)
    figure = Figure(
        (4 * cell, cell * height / width + 0.6 + 0.2 * rows),
        dpi=_DOTS_PER_INCH,
        layout="constrained",
    )
    pictures = (
        ("image", image, "antialiased"),
        ("truth", colours(label, palette), "nearest"),
        ("prediction", colours(prediction, palette), "nearest"),
        ("errors, in red", errors(image, label, prediction), "nearest"),
    )
    for axes, (title, pixels, interpolation) in zip(
        figure.subplots(1, len(pictures)), pictures, strict=True
    ):
        axes.imshow(pixels, interpolation=interpolation)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    _explain(figure, classes, class_names, palette, columns)
    return _pixels(figure)


def errors(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image in pale grey, wrong pixels red, ignored ones white: uint8 [h,w,3]."""
    grey = image.mean(axis=-1, keepdims=True)
    drawn = np.repeat(110 + 0.5 * grey, 3, axis=-1).astype(np.uint8)
    ignored = label == IGNORE_LABEL
    drawn[(prediction != label) & ~ignored] = _WRONG
    drawn[ignored] = 255
    return drawn


def _explain(
    figure: Figure,
    classes: Sequence[int],
    class_names: Sequence[str],
    palette: Palette,
    columns: int,
) -> None:
    """The names of some classes beside their colours, below the figure."""
    patches = [
        Patch(
            facecolor="#{:02x}{:02x}{:02x}".format(*palette[index]),
            edgecolor=_GREY,
            label=class_names[index],
        )
        for index in classes
    ]
    legend = figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _write_cells(axes: Axes, share: np.ma.MaskedArray) -> None:
    """The percentages into the cells that have any."""
    for row, column in np.argwhere(share.filled(0) >= 0.5):
        value = share[row, column]
        axes.text(
            column,
            row,
            f"{value:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value > 40 else "black",
        )


def _label_classes(set_labels: Any, names: Sequence[str], size: int) -> None:
    # A class may be called "$a$", which is a name and no formula.
    set_labels(names, fontsize=size, parse_math=False)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """width, height: in inches."""
    figure = Figure((width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    return figure, figure.subplots()


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
