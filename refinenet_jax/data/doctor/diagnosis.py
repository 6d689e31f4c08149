"""Tells what is wrong with a data set, from what was counted in it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from refinenet_jax.data.class_table import ranges
from refinenet_jax.data.doctor import encodings
from refinenet_jax.data.doctor.channels import find_channels
from refinenet_jax.data.doctor.copies import find_copies
from refinenet_jax.data.doctor.findings import LEVELS, NUM_FILES, Finding, counted
from refinenet_jax.data.doctor.rarity import find_rare
from refinenet_jax.data.doctor.survey import Fault, Look, Survey
from refinenet_jax.data.doctor.values import Values
from refinenet_jax.data.images import DataError
from refinenet_jax.data.request import Request
from refinenet_jax.errors import listed

_ENOUGH = 16  # images that tell what a split is like, where it has more
_NEAR_EMPTY = 0.001  # share of labelled pixels
_MUCH = 0.1  # share of pixels that hardly are void


def diagnose(surveys: Sequence[Survey], request: Request) -> list[Finding]:
    """What is wrong, the worst first, one finding for each cause.

    Args:
      surveys: of the splits, that of training first; at least one.
      request: how the data set was read.
    """
    findings = [
        *_faults(surveys, request),
        *find_channels(surveys, request),
        *_values(surveys, request),
    ]
    broken = {
        name
        for finding in findings
        if finding.level == "error"
        for name in finding.split.split(", ")
    }
    for number, survey in enumerate(surveys):
        # What else such a split seems to lack follows from what is wrong with it.
        if survey.split not in broken:
            findings += _labels(survey, request, trains=number == 0)
            if number == 0 and survey.whole:
                findings += find_rare(survey)
        findings += _notes(survey)
    findings += find_copies(surveys, own=request.name == "folder")
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def unlisted(error: DataError, splits: Sequence[str], request: Request) -> Finding:
    """The finding where not even the list of examples is whole."""
    message = f"{error}; {_remedy(error.kind, request)}"
    return Finding("error", error.kind, ", ".join(splits), message, ())


def _remedy(kind: str, request: Request) -> str:
    if kind == "damaged" and request.damaged == "skip":
        return "such files are left out, as config.data.damaged='skip' says"
    if kind == "damaged":
        return "mend them, or set config.data.damaged='skip' to leave such files out"
    if kind == "not_finite":
        return (
            "mend them, or set config.data.not_finite='ignore' to have such pixels not "
            "count"
        )
    if request.name != "folder":
        return f"take the files as the authors of {request.name} distribute them"
    classes = request.folder.classes
    return {
        "unknown_form": "save it as a TIFF, a PNG or an .npy of 1 to 16 channels of "
        "uint8, uint16 or float32",
        "channels": "leave out or convert those that differ",
        "missing": "put the files in place, or take the names off the list",
        "size_mismatch": "resize labels from the originals with nearest neighbour, or "
        "take the pictures that the labels were drawn on",
        "jpeg_label": "changing the ending of the name does not help",
        "colours_for_ids": "or, if the colours are the classes, list them in "
        f"{classes} (a line is: name red green blue) and set "
        "config.data.folder.encoding='colours'",
        "unknown_colours": "if they are many and alike, the labels were resized or "
        "saved with loss: make them again from the originals with nearest neighbour",
        "other_json": "export it again, or set config.data.folder.encoding to what it is",
        "unknown_category": f"add the name to {classes}, or call shapes that do not "
        "count 'ignore'",
        "outside": "draw the shape again within the picture, or take the picture that it "
        "was drawn on",
        "no_area": "draw it as a polygon, or remove it",
    }[kind]


def _faults(surveys: Sequence[Survey], request: Request) -> Iterable[Finding]:
    kinds: dict[str, list[tuple[Survey, Fault]]] = defaultdict(list)
    for survey in surveys:
        for fault in survey.faults:
            kinds[fault.kind].append((survey, fault))
    for kind, found in kinds.items():
        where = dict.fromkeys(survey.split for survey, _ in found)
        total = sum(survey.scanned for survey in surveys if survey.split in where)
        faults = [fault for _, fault in found]
        skipped = kind == "damaged" and request.damaged == "skip"
        yield Finding(
            "warning" if skipped else "error",
            kind,
            ", ".join(where),
            f"{len(faults)} of {counted(total, 'image')}: {faults[0].message}; "
            f"{_remedy(kind, request)}",
            tuple(fault.file for fault in faults[:NUM_FILES]),
        )


def values_of(surveys: Sequence[Survey], request: Request) -> Values | None:
    """What the labels hold, of the splits with unknown values where there are some.

    None where no label can be looked at.
    """
    surveys = _with_ids(surveys)
    if not surveys:
        return None
    pixels: Counter[int] = Counter()
    inner: Counter[int] = Counter()
    for survey in _strange(surveys) or surveys:
        for look in survey.looks:
            pixels.update(look.pixels)
            inner.update(look.inner)
    table = surveys[0].table
    reads_ids = request.name == "folder" and request.folder.encoding == "ids"
    return Values(
        pixels=pixels,
        all=frozenset(value for survey in surveys for value in survey.value_pixels),
        inner=inner,
        table=table,
        file=request.folder.classes if reads_ids else "",
        authors=table.source,
        ignore=request.folder.ignore,
    )


def _with_ids(surveys: Sequence[Survey]) -> list[Survey]:
    # Beside labels with colours in place of ids, grey ones are just grey by chance.
    return [
        survey
        for survey in surveys
        if all(fault.kind != "colours_for_ids" for fault in survey.faults)
    ]


def _strange(surveys: Sequence[Survey]) -> list[Survey]:
    return [survey for survey in surveys if survey.unknown]


def _values(surveys: Sequence[Survey], request: Request) -> Iterable[Finding]:
    values = values_of(surveys, request)
    if values is None:
        return
    surveys = _with_ids(surveys)
    chosen = _strange(surveys) or surveys
    where = ", ".join(survey.split for survey in chosen)
    known = set(values.table.raw_to_class)
    looks = [look for survey in chosen for look in survey.looks]
    files = [look.file for look in looks if set(look.pixels) - known]
    for code, message in encodings.explain(values):
        yield Finding("error", code, where, message, tuple(files[:NUM_FILES]))
    yield from _background(surveys, values, request)


def _background(
    surveys: Sequence[Survey], values: Values, request: Request
) -> Iterable[Finding]:
    """Whether offset=-1 hides a background and leaves the last class without pixels."""
    if not values.file or request.folder.offset != -1 or values.unknown:
        return
    counts = [survey.class_pixels for survey in surveys]
    seen = [sum(each) for each in zip(*counts, strict=True)]
    total = sum(sum(survey.value_pixels.values()) for survey in surveys)
    zeros = sum(survey.value_pixels.get(0, 0) for survey in surveys)
    if message := encodings.hides_a_class(values):
        yield Finding(
            "warning",
            "class_ignored",
            ", ".join(survey.split for survey in surveys),
            message,
            (),
        )
        return
    if seen[-1] or not all(seen[:-1]) or zeros <= _MUCH * total:
        return
    last = values.table.class_names[-1]
    yield Finding(
        "error" if all(survey.whole for survey in surveys) else "warning",
        "zero_is_background",
        ", ".join(survey.split for survey in surveys),
        f"config.data.folder.offset=-1 ignores the value 0, which {zeros / total:.1%} "
        f"of the pixels have, and the last class, {last!r}, never occurs while all "
        "others do: 0 is a class; set config.data.folder.offset=0",
        (),
    )


def _labels(survey: Survey, request: Request, *, trains: bool) -> Iterable[Finding]:
    """What is strange about labels whose values are right."""
    if not survey.looks:
        return
    worst = [*_nothing_to_learn(survey, request), *_near_empty(survey)]
    yield from worst[:1]
    # Only what is not nearly empty can be said to lack something.
    if survey.whole and all(finding.level != "error" for finding in worst):
        yield from _missing_classes(survey, trains=trains)


def _nothing_to_learn(survey: Survey, request: Request) -> Iterable[Finding]:
    names = survey.table.class_names
    present = [n for n, c in zip(names, survey.class_pixels, strict=True) if c]
    if len(present) > 1:
        return
    own = request.name == "folder"
    remedy = "are these the labels" + (
        ", and is config.data.folder right?" * own or "?"
    )
    values = ranges(list(survey.value_pixels)).replace(" or ", ", ")
    if present:
        code = "one_class"
        what = f"all labelled pixels are {present[0]!r}, so there is nothing to learn"
    else:
        code = "no_label_at_all"
        what = f"no pixel of {counted(survey.scanned, 'image')} has a class"
    message = f"{what} (values found: {values}): {remedy}"
    yield Finding(_level(survey), code, survey.split, message, ())


def _missing_classes(survey: Survey, *, trains: bool) -> Iterable[Finding]:
    names = survey.table.class_names
    missing = [n for n, c in zip(names, survey.class_pixels, strict=True) if not c]
    if not missing or len(missing) >= len(names) - 1:
        return
    if trains:
        consequence = "the network cannot learn them: add images that show them"
    else:
        consequence = "their IoU is left out of the mean"
    yield Finding(
        "warning" if trains and survey.images >= len(names) else "note",
        "missing_classes",
        survey.split,
        f"{len(missing)} of {len(names)} classes never occur: {listed(missing, 10)}; "
        f"{consequence}",
        (),
    )


def _level(survey: Survey) -> str:
    """What holds for a few images of many need not hold for all."""
    return "error" if survey.whole or survey.scanned >= _ENOUGH else "warning"


def _near_empty(survey: Survey) -> Iterable[Finding]:
    def share(look: Look) -> float:
        labelled = (c for v, c in look.pixels.items() if survey.class_of(v) is not None)
        return sum(labelled) / (look.size[0] * look.size[1])

    empty = [look.file for look in survey.looks if share(look) < _NEAR_EMPTY]
    if empty:
        most = 2 * len(empty) > len(survey.looks)
        yield Finding(
            _level(survey) if most else "warning",
            "near_empty",
            survey.split,
            f"{len(empty)} of {counted(len(survey.looks), 'image')} have a class on less "
            f"than {_NEAR_EMPTY:.1%} of their pixels: label them or leave them out",
            tuple(empty[:NUM_FILES]),
        )


def _notes(survey: Survey) -> Iterable[Finding]:
    for code, files, labels in (
        (
            "exif",
            [x.file for x in survey.looks if x.turned and not x.label_turned],
            "the labels are upright",
        ),
        (
            "exif_label",
            [x.file for x in survey.looks if x.label_turned],
            "so were the labels, which are drawn on the pixels as they are stored",
        ),
    ):
        if files:
            yield Finding(
                "note",
                code,
                survey.split,
                f"{counted(len(files), 'image')} stored turned, and set upright as the "
                f"EXIF entry says; {labels}",
                tuple(files[:NUM_FILES]),
            )
    if survey.whole and survey.published not in (None, survey.images):
        yield Finding(
            "note",
            "published_size",
            survey.split,
            f"{counted(survey.images, 'image')}, but the authors speak of "
            f"{survey.published}: is the copy complete?",
            (),
        )
