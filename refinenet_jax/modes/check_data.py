"""Mode check_data: looks through images and labels, and says what is wrong with them."""

from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log
from refinenet_jax.assembly import data as job
from refinenet_jax.data.doctor import report
from refinenet_jax.data.doctor.diagnosis import diagnose, unlisted
from refinenet_jax.data.doctor.survey import Survey
from refinenet_jax.data.images import DataError
from refinenet_jax.data.source import Source
from refinenet_jax.processes import on_first_process
from refinenet_jax.provenance import provenance

_NUM_PICTURES = 12  # of each split


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Writes check_data/report.json and .html and says what they hold in short.

    Raises:
        UserError: an error was found, or the data cannot be opened at all.
    """
    files.make_folder(workdir, "--workdir")
    sources = job.prepared_sources(config)
    on_first_process(
        lambda: _check_all(config, sources, workdir / "check_data"), job.OTHERS_END
    )


def _check_all(
    config: ConfigDict, sources: Mapping[str, Source], folder: epath.Path
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
    told_at_the_end = job.told_when_refused(findings)
    for finding in findings:
        if finding not in told_at_the_end:
            log.say(job.finding_line(finding))
    job.refuse(findings, f"{page} shows more")
    log.say(f"no errors; {page} shows more")
