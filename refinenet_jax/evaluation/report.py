"""An evaluation as people read it: a table on the terminal, a page with figures."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.table import Table

from refinenet_jax import files, pages
from refinenet_jax.evaluation import figures
from refinenet_jax.pictures import Palette, encode

Record = Mapping[str, Any]

_CASES_OF_A_KIND = 3
_MOST_CONFUSIONS = 15
_OVERALL = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")


@dataclasses.dataclass(frozen=True)
class Case:
    """An image to show.

    Attributes:
        kind: "best", "median" or "worst".
        name: of the image in its data set.
        mean_iou: over the classes that the image holds.
        image: uint8 [H,W,3].
        label: uint8 [H,W], 255 = ignore.
        prediction: uint8 [H,W].
    """

    kind: str
    name: str
    mean_iou: float
    image: np.ndarray
    label: np.ndarray
    prediction: np.ndarray


def choose_cases(image_scores: np.ndarray) -> list[tuple[str, int]]:
    """Kind and number of the images to show, the best and the worst first, none twice.

    image_scores: float64 [N]; images with NaN, which have nothing to score, are left
    out.
    """
    order = np.argsort(image_scores, kind="stable")  # NaN comes last
    order = order[: np.count_nonzero(~np.isnan(image_scores))]
    middle = max(0, (len(order) - _CASES_OF_A_KIND) // 2)
    kinds = {"best": order[::-1], "worst": order, "median": order[middle:]}
    kind_of: dict[int, str] = {}
    for kind, indices in kinds.items():
        for index in indices[:_CASES_OF_A_KIND].tolist():
            kind_of.setdefault(index, kind)
    cases = [(kind, index) for index, kind in kind_of.items()]
    return sorted(cases, key=lambda case: case[0])  # best, median, worst


def class_table(record: Record) -> Table:
    """IoU of each class and the means, with intervals; takes what eval.json holds."""
    intervals = record["intervals"]
    table = Table(title=f"{record['dataset']} {record['split']}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    if intervals:
        table.add_column(f"{intervals['confidence']:.0%} interval", justify="right")
    for name, iou in record["per_class_iou"].items():
        bounds = intervals and intervals["per_class_iou"][name]
        table.add_row(name, _percent(iou), _span(bounds))
    table.add_section()
    for name in _OVERALL[:3]:
        bounds = intervals and intervals.get(name)
        table.add_row(name.replace("_", " "), _percent(record[name]), _span(bounds))
    return table


def write_report(
    folder: epath.Path, record: Record, cases: Iterable[Case], palette: Palette
) -> None:
    """Writes report.html, which holds all it shows, and the figures as PNG files.

    record: what eval.json holds.
    """
    names = list(record["per_class_iou"])
    matrix = np.asarray(record["confusion_matrix"], np.int64)
    intervals, boundary = record["intervals"], record["boundary"]
    drawn = {
        "classes": figures.class_bars(
            record["per_class_iou"], intervals and intervals["per_class_iou"]
        ),
        "confusion": figures.confusion(matrix, names),
    }
    if boundary:
        drawn["trimap"] = figures.trimap(boundary["trimap"], record)
    texts = {}
    for number, case in enumerate(cases, start=1):
        key = f"image_{number}_{case.kind}"
        picture = (case.image, case.label, case.prediction)
        drawn[key] = figures.example(*picture, names, palette)
        texts[key] = f"{case.kind}: {case.name}, {_percent(case.mean_iou)} %"
    for key, pixels in drawn.items():
        files.write_bytes(folder / f"figures/{key}.png", encode(pixels, "PNG"))
    values = {
        "record": record,
        "overall": _overall(record),
        "conventions": _conventions(record),
        "classes": _classes(record, matrix, palette),
        "confusions": _confusions(matrix, names),
        "boundary": boundary and _trimap_rows(boundary),
        "figures": {key: pages.picture(x, "PNG") for key, x in drawn.items()},
        "cases": texts,
        "made_with": _made_with(record),
    }
    files.write_bytes(folder / "report.html", pages.render("evaluation.html", values))


def _overall(record: Record) -> list[dict[str, str]]:
    intervals = record["intervals"] or {}
    rows = [
        {
            "name": _words(name),
            "value": _percent(record[name]),
            "interval": _span(intervals.get(name)),
        }
        for name in _OVERALL
    ]
    if record["boundary"]:
        value = _percent(record["boundary"]["mean_iou"])
        rows.append({"name": "mean boundary IoU", "value": value, "interval": ""})
    return rows


def _conventions(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "name": _words(name),
            "value": _percent(value),
            "text": record["conventions"][name],
            "own": name == record["convention"],
        }
        for name, value in record["mean_iou_by_convention"].items()
    ]


def _classes(
    record: Record, matrix: np.ndarray, palette: Palette
) -> list[dict[str, Any]]:
    intervals, boundary = record["intervals"], record["boundary"]
    true = matrix.sum(axis=1)
    return [
        {
            "name": name,
            "colour": palette[index],
            "iou": _percent(iou),
            "interval": _span(intervals and intervals["per_class_iou"][name]),
            "boundary": _percent(boundary["per_class_iou"][name]) if boundary else "",
            "accuracy": _percent(
                matrix[index, index] / true[index] if true[index] else None
            ),
            "share": f"{100 * true[index] / true.sum():.3f}",
        }
        for index, (name, iou) in enumerate(record["per_class_iou"].items())
    ]


def _confusions(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes with the most pixels of one taken for the other."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [
        {
            "true": names[row],
            "predicted": names[column],
            "pixels": int(wrong[row, column]),
            "share": _percent(wrong[row, column] / matrix[row].sum()),
        }
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]


def _trimap_rows(boundary: Record) -> dict[str, Any]:
    trimap = boundary["trimap"]
    columns = (trimap[key] for key in ("radii", "mean_iou", "pixel_accuracy", "pixels"))
    return {
        "width": f"{100 * boundary['width_of_diagonal']:g}",
        "trimap": [
            (radius, _percent(iou), _percent(accuracy), pixels)
            for radius, iou, accuracy, pixels in zip(*columns, strict=True)
            if pixels
        ],
    }


def _made_with(record: Record) -> dict[str, str]:
    names = ("step", "num_images", "ignored_pixels", "compilations", "data_fingerprint")
    return pages.facts(
        {
            **{_words(name): record[name] for name in names},
            "seconds": f"{record['seconds']:.1f}",
            "images per second": f"{record['images_per_second']:.2f}",
            "protocol": {_words(k): value for k, value in record["protocol"].items()},
            **record["provenance"],
        }
    )


def _words(name: str) -> str:
    return name.replace("_", " ").replace("iou", "IoU")


def _percent(share: float | None) -> str:
    return "absent" if share is None else f"{100 * share:.2f}"


def _span(bounds: Sequence[float] | None) -> str:
    if not bounds:
        return ""
    low, high = bounds
    return f"{100 * low:.2f} to {100 * high:.2f}"
