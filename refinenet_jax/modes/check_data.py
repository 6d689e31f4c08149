"""Mode check_data: looks through images and labels, and says what is wrong with them.

Training calls `refuse_errors` first, which looks at some of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.data.doctor import report
from refinenet_jax.data.doctor.diagnosis import diagnose, unlisted
from refinenet_jax.data.doctor.findings import Finding
from refinenet_jax.data.doctor.originals import Originals, open_files, open_prepared
from refinenet_jax.data.doctor.survey import Survey, look_through
from refinenet_jax.data.images import DataError
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError
from refinenet_jax.modes.start import make_folder, open_data, request_of
from refinenet_jax.processes import on_first_process
from refinenet_jax.provenance import provenance

_NUM_PICTURES = 12  # of each split
_NUM_TOLD = 3  # errors in one line
_OTHERS_END = "process 0 found errors in the data, see there"


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes check_data/report.json and .html and says what they hold in short.

    Raises:
        UserError: an error was found, or the data cannot be opened at all.
    """
    make_folder(workdir)
    sources = _prepared(config)
    on_first_process(
        lambda: _check_all(config, sources, workdir / "check_data"), _OTHERS_END
    )


def refuse_errors(config: ConfigDict) -> None:
    """Looks at config.data.check_images examples of each split, evenly spread.

    Says nothing when all is well.

    Raises:
        UserError: there is something in them that training must not start on.
    """
    if config.data.check_images:
        sources = _prepared(config)
        on_first_process(lambda: _check_some(config, sources), _OTHERS_END)


def _check_all(config: ConfigDict, sources: Mapping[str, Source], folder: Path) -> None:
    request, fingerprint = request_of(config), None
    surveys: list[Survey] = []
    try:
        data = _open(config, sources)
    except DataError as error:  # not even the lists are whole
        findings = [unlisted(error, _split_names(config), request)]
    else:
        most = max(len(split.files) for split in data.splits)
        surveys = _survey(config, data, num_images=most, num_pictures=_NUM_PICTURES)
        findings = diagnose(surveys, request)
        try:
            fingerprint = data.fingerprint()
        except DataError as error:
            if all(finding.code != error.kind for finding in findings):
                findings.insert(0, unlisted(error, ["others"], request))
    found = report.report(
        config.data.name, surveys, findings, fingerprint, provenance()
    )
    files.write_json(folder / "report.json", found)
    page = folder / "report.html"
    report.write_page(page, found, surveys)
    log.say(report.table(found))
    told_at_the_end = _errors(findings)[:_NUM_TOLD]
    for finding in findings:
        if finding not in told_at_the_end:
            log.say(_line(finding))
    _refuse(findings, f"{page} shows more")
    log.say(f"no errors; {page} shows more")


def _check_some(config: ConfigDict, sources: Mapping[str, Source]) -> None:
    number = config.data.check_images
    try:
        data = _open(config, sources)
        surveys = _survey(config, data, num_images=number, num_pictures=0)
        findings = diagnose(surveys, request_of(config))
    except DataError as error:
        findings = [unlisted(error, _split_names(config), request_of(config))]
    for finding in findings:
        if finding.level == "warning":
            log.say(_line(finding))
    _refuse(findings, "--mode=check_data shows more")


def _split_names(config: ConfigDict) -> list[str]:
    return list(dict.fromkeys([config.data.train_split, config.data.eval_split]))


def _prepared(config: ConfigDict) -> dict[str, Source]:
    """The prepared examples, where the files themselves are not at hand.

    All processes must call this: one of them may have to prepare the data.
    """
    if config.data.manual_dir:
        return {}
    names = _split_names(config)
    return dict(zip(names, open_data(request_of(config), *names), strict=True))


def _open(config: ConfigDict, sources: Mapping[str, Source]) -> Originals:
    if sources:
        return open_prepared(request_of(config), sources)
    return open_files(request_of(config), _split_names(config))


def _survey(
    config: ConfigDict, data: Originals, *, num_images: int, num_pictures: int
) -> list[Survey]:
    total = sum(min(num_images, len(split.files)) for split in data.splits)
    with log.progress("checking data", total) as on_image:
        return [
            look_through(
                split,
                data.table,
                num_images=num_images,
                num_pictures=num_pictures,
                num_threads=config.data.num_threads,
                on_image=on_image,
            )
            for split in data.splits
        ]


def _line(finding: Finding) -> str:
    named = f" ({', '.join(finding.files)})" if finding.files else ""
    return f"{finding.level} {finding.code}, {finding.split}: {finding.message}{named}"


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "error"]


def _refuse(findings: Sequence[Finding], more: str) -> None:
    errors = _errors(findings)
    if errors:
        first = "; ".join(
            f"{error.code}: {error.message} (split {error.split}"
            + (f", {error.files[0]})" if error.files else ")")
            for error in errors[:_NUM_TOLD]
        )
        number = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise UserError(f"{number} in the data: {first}; {more}")
