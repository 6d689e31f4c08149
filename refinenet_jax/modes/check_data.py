"""Mode check_data: looks through images and labels, and says what is wrong with them."""

import copy
from collections.abc import Mapping, Sequence

from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly import data as job
from refinenet_jax.config import default
from refinenet_jax.data.doctor import mending, report
from refinenet_jax.data.doctor.diagnosis import diagnose, unlisted
from refinenet_jax.data.doctor.findings import Finding
from refinenet_jax.data.doctor.survey import Survey
from refinenet_jax.data.images import DataError
from refinenet_jax.data.source import Source
from refinenet_jax.errors import UserError, listed
from refinenet_jax.processes import on_first_process
from refinenet_jax.provenance import provenance

_NUM_PICTURES = 12  # of each split


def run(config: ConfigDict, workdir: epath.Path, fix: str | None = None) -> None:
    """Writes check_data/report.json and .html and says what they hold in short.

    Args:
        config: what is checked.
        workdir: where the report goes.
        fix: a new folder for a mended copy of a person's own folder; None: none.

    Raises:
        UserError: an error was found, in the copy where there is one, or the data
            cannot be opened at all.
    """
    if fix and config.data.name != "folder":
        raise UserError(
            f"--fix={fix} mends one's own folder: take the files of "
            f"{config.data.name} as their authors distribute them"
        )
    files.make_folder(workdir, "--workdir")
    sources = job.prepared_sources(config)
    on_first_process(
        lambda: _check_all(config, sources, workdir / "check_data", fix), job.OTHERS_END
    )


def _check_all(
    config: ConfigDict,
    sources: Mapping[str, Source],
    folder: epath.Path,
    fix: str | None,
) -> None:
    request, fingerprint = job.request_of(config), None
    surveys: list[Survey] = []
    try:
        data = job.open_originals(config, sources)
    except DataError as error:  # not even the lists are whole
        findings = [unlisted(error, job.splits_of(config), request)]
    else:
        most = max(len(split.files) for split in data.splits)
        surveys = job.survey(config, data, num_images=most, num_pictures=_NUM_PICTURES)
        findings = diagnose(surveys, request)
        if data.remark:
            where = ", ".join(split.name for split in data.splits)
            findings.append(Finding("note", "drawn_splits", where, data.remark, ()))
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
    if fix:
        for finding in findings:
            log.say(job.finding_line(finding))
        _check_all(_mended(config, surveys, fix), {}, folder / "mended", None)
        return
    told_at_the_end = job.told_when_refused(findings)
    for finding in findings:
        if finding not in told_at_the_end:
            log.say(job.finding_line(finding))
    job.refuse(findings, f"{page} shows more")
    log.say(f"no errors; {page} shows more")


def _mended(config: ConfigDict, surveys: Sequence[Survey], fix: str) -> ConfigDict:
    """Writes the copy and returns the config that reads it.

    Raises:
        UserError: it cannot be written, or there is nothing to write.
    """
    was, splits = job.request_of(config), job.splits_of(config)
    request = mending.better_request(surveys, was)
    total = sum(survey.images for survey in surveys)
    with log.progress("mending", total) as on_image:
        mended = mending.write_mended(request, splits, files.path(fix), was, on_image)
    done = [f"{count} {what}" for what, count in mended.done.items()]
    log.say(
        f"wrote {fix}: {mended.pairs} images and labels; "
        f"{', '.join(done) or 'nothing was to be mended'}"
    )
    if mended.left_out:
        log.say(f"left out: {listed(mended.left_out, 5, '; ')}")
    changed = copy.deepcopy(config)
    changed.data.manual_dir = fix
    changed.data.folder = default().data.folder
    return changed
