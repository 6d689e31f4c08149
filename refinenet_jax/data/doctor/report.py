"""What was found in a data set, as JSON, as a page and as a table."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from rich.table import Table

from refinenet_jax import files, pages
from refinenet_jax.data.class_table import ranges
from refinenet_jax.data.doctor.findings import Finding
from refinenet_jax.data.doctor.survey import Picture, Survey
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.labels import IGNORE_LABEL
from refinenet_jax.pictures import overlay

_UNKNOWN_COLOUR = (255, 0, 255)
_STRIPE = 4  # pixels


def report(
    dataset: str,
    surveys: Sequence[Survey],
    findings: Sequence[Finding],
    fingerprint: str | None,
    provenance: Mapping[str, object],
) -> dict[str, Any]:
    """What report.json holds.

    dataset: its name; fingerprint: of its files, None where some are missing;
    provenance: what it was made with.
    """
    levels = Counter(finding.level for finding in findings)
    return {
        "dataset": dataset,
        "splits": {survey.split: _split(survey) for survey in surveys},
        "findings": [dataclasses.asdict(finding) for finding in findings],
        "errors": levels["error"],
        "warnings": levels["warning"],
        "data_fingerprint": fingerprint,
        "provenance": provenance,
    }


def write_page(
    path: epath.Path, report: Mapping[str, Any], surveys: Sequence[Survey]
) -> None:
    """Writes a page that holds its pictures."""
    values = {
        "dataset": report["dataset"],
        "verdict": _verdict(report),
        "findings": report["findings"],
        "splits": {survey.split: _shown(survey) for survey in surveys},
        "made_with": _made_with(report),
    }
    files.write_bytes(path, pages.render("check_data.html", values))


def table(report: Mapping[str, Any]) -> Table:
    """The splits in short, for the terminal."""
    summary = Table(title=f"{report['dataset']}: {_verdict(report)}")
    summary.add_column("split")
    for name in ("images", "smallest", "largest", "classes", "ignored", "unreadable"):
        summary.add_column(name, justify="right")
    for name, split in report["splits"].items():
        sizes = split["sizes"]
        counts = [entry["pixels"] for entry in split["classes"].values()]
        summary.add_row(
            name,
            str(split["images"]),
            _size(sizes["smallest"]),
            _size(sizes["largest"]),
            f"{sum(map(bool, counts))} of {len(counts)}",
            f"{split['ignored_share']:.1%}",
            str(split["unreadable"]),
        )
    return summary


def _split(survey: Survey) -> dict[str, Any]:
    names = survey.table.class_names
    counts = zip(names, survey.class_pixels, survey.class_images, strict=True)
    sizes = sorted((look.size for look in survey.looks), key=lambda size: np.prod(size))
    return {
        "images": survey.images,
        "scanned": survey.scanned,
        "published": survey.published,
        "unreadable": len(survey.faults),
        "sizes": {
            "smallest": sizes[0] if sizes else None,
            "median": sizes[len(sizes) // 2] if sizes else None,
            "largest": sizes[-1] if sizes else None,
            "distinct": len(set(sizes)),
        },
        "classes": {
            name: {"pixels": pixels, "images": images}
            for name, pixels, images in counts
        },
        "values": {str(v): count for v, count in survey.value_pixels.items()},
        "unknown_values": {str(v): count for v, count in survey.unknown.items()},
        "ignored_share": survey.ignored_share,
        "turned": sum(look.turned for look in survey.looks),
        **_pictures(survey),
    }


def _pictures(survey: Survey) -> dict[str, Any]:
    """What there is to say of pictures that are not all RGB of 8 bits."""
    if set(survey.kinds) <= {RGB}:
        return {}
    mean, std = survey.mean_and_std or (None, None)
    kinds = [dataclasses.asdict(kind) for kind in survey.kinds]
    return {"pictures": {"kinds": kinds, "mean": mean, "std": std}}


def _shown(survey: Survey) -> dict[str, Any]:
    """A split as the template wants it."""
    found = _split(survey)
    largest = max(survey.class_pixels)
    rows = zip(
        survey.table.class_names,
        survey.table.palette,
        survey.class_pixels,
        survey.class_images,
        strict=True,
    )
    return {
        "facts": _facts(survey, found),
        "unknown_values": bool(survey.unknown),
        "classes": [
            {
                "name": name,
                "colour": colour,
                "pixels": pixels,
                "images": images,
                "share": pixels / max(survey.labelled, 1),
                "bar": pixels / max(largest, 1),
            }
            for name, colour, pixels, images in rows
        ],
        "pictures": [_figure(picture, survey) for picture in survey.pictures],
    }


def _facts(survey: Survey, found: Mapping[str, Any]) -> dict[str, str]:
    sizes = found["sizes"]
    span = _size(sizes["smallest"])
    if sizes["distinct"] > 1:
        largest, median = _size(sizes["largest"]), _size(sizes["median"])
        span += f" to {largest}, median {median}; {sizes['distinct']} different"
    published = "" if survey.published is None else f", published {survey.published}"
    facts = {
        "images": f"{survey.images}{published}",
        "sizes": span,
        "label values": ranges(list(survey.value_pixels)).replace(" or ", ", "),
        "ignored": f"{survey.ignored_share:.2%} of the pixels",
    }
    if "pictures" in found:
        facts["pictures"] = " and ".join(map(str, survey.kinds))
        if survey.mean_and_std:
            for name, values in zip(("mean", "std"), survey.mean_and_std, strict=True):
                facts[f"{name} of channels"] = ", ".join(f"{x:g}" for x in values)
    if survey.faults:
        facts["unreadable"] = str(len(survey.faults))
    if survey.unknown:
        unknown = sum(survey.unknown.values()) / sum(survey.value_pixels.values())
        facts["unknown"] = f"{unknown:.2%} of the pixels"
    if found["turned"]:
        facts["turned (EXIF)"] = str(found["turned"])
    return facts


def _figure(picture: Picture, survey: Survey) -> dict[str, Any]:
    """The image, and the image with its label drawn over it."""
    sides = []
    if picture.image is not None:
        sides.append(pages.picture(picture.image, "JPEG"))
        if picture.label is not None:
            drawn = _drawn(picture.image, picture.label, survey)
            drawn[picture.unknown] = _UNKNOWN_COLOUR
            sides.append(pages.picture(drawn, "JPEG"))
    return {"file": picture.file, "fault": picture.fault, "sides": sides}


def _drawn(image: np.ndarray, label: np.ndarray, survey: Survey) -> np.ndarray:
    """Classes in their colours, ignored pixels striped: uint8 [h,w,3]."""
    drawn = overlay(image, label, survey.table.palette)
    rows, columns = np.indices(label.shape)
    bright = (rows + columns) // _STRIPE % 2 == 0
    ignored = label == IGNORE_LABEL
    drawn[ignored] = image[ignored] // 3
    drawn[ignored & bright] = 255
    return drawn


def _size(size: Sequence[int] | None) -> str:
    return "none" if size is None else f"{size[0]}×{size[1]}"


def _verdict(report: Mapping[str, Any]) -> str:
    def count(number: int, noun: str) -> str:
        return f"{number or 'no'} {noun}" + ("" if number == 1 else "s")

    errors, warnings = report["errors"], report["warnings"]
    return f"{count(errors, 'error')}, {count(warnings, 'warning')}"


def _made_with(report: Mapping[str, Any]) -> dict[str, str]:
    fingerprint = report["data_fingerprint"] or "files are missing"
    return pages.facts({"data fingerprint": fingerprint, **report["provenance"]})
