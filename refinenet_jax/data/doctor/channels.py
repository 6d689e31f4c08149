"""What the pictures of a data set are: their channels, and what is wrong with these."""

from collections.abc import Iterable, Sequence

from refinenet_jax.data.doctor.findings import NUM_FILES, Finding, counted
from refinenet_jax.data.doctor.survey import Survey
from refinenet_jax.data.images import DataError, common_kind
from refinenet_jax.data.picture_kind import RGB, PictureKind
from refinenet_jax.data.request import Request


def find_channels(surveys: Sequence[Survey], request: Request) -> Iterable[Finding]:
    """Pictures of several kinds, or of another than the network sees, and notes."""
    found: dict[PictureKind, str] = {}
    for survey in surveys:
        found = {**found, **survey.kinds}
    if not found:
        return
    where = ", ".join(survey.split for survey in surveys)
    try:
        # Examples are known by their labels.
        kind = common_kind({kind: f"of {file}" for kind, file in found.items()})
    except DataError as error:
        yield Finding(
            "error",
            "channels",
            where,
            f"{error}; leave out or convert those that differ",
            tuple(found.values())[:NUM_FILES],
        )
        return
    asked = request.channels
    if asked and kind.together(PictureKind(asked, kind.dtype)) != PictureKind(
        asked, kind.dtype
    ):
        yield Finding(
            "error",
            "channels",
            where,
            f"the pictures have {kind}, but config.model.channels={asked}: set 0",
            (),
        )
    for survey in surveys:
        yield from _notes(survey, kind)


def _notes(survey: Survey, kind: PictureKind) -> Iterable[Finding]:
    alpha = [look.file for look in survey.looks if look.has_alpha]
    if alpha:
        message = f"{counted(len(alpha), 'image')} with transparency, which is dropped"
        files = tuple(alpha[:NUM_FILES])
        yield Finding("note", "alpha", survey.split, message, files)
    broken = [look for look in survey.looks if look.not_finite]
    if broken:
        pixels = sum(look.not_finite for look in broken)
        message = (
            f"{counted(len(broken), 'image')} with {pixels} pixels that are NaN or "
            "infinite; they do not count, and the network sees the mean"
        )
        files = tuple(look.file for look in broken[:NUM_FILES])
        yield Finding("warning", "not_finite", survey.split, message, files)
    measured = survey.mean_and_std
    if kind != RGB and measured:
        mean, std = (" ".join(f"{x:g}" for x in values) for values in measured)
        message = f"the pictures have {kind}; mean {mean}, standard deviation {std}"
        yield Finding("note", "pictures", survey.split, message, ())
