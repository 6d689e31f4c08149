"""Keeps what a run says of itself as a receipt: python results/keep.py WORKDIR NAME.

On the machine that ran it, and once it is through. results/NAME/ then holds the workdir's
result.json and eval.json, in which the program is called by its name, not by the path
where it was installed, and receipt.json: the command, the commit, the machine and the
mean IoU of each evaluation. `python results/page.py` puts them on docs/results.md.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent / "benchmarks"))
from parts.tables import device

from refinenet_jax import files
from refinenet_jax.errors import UserError


def keep(workdir: Path, folder: Path, machine: str) -> None:
    """Writes the receipt of a run.

    Args:
        workdir: of the run.
        folder: where the receipt goes.
        machine: that ran it.

    Raises:
        UserError: the run is not through, or its checkout had changes of its own.
    """
    result = _read(workdir / "result.json")
    evaluation = _read(workdir / "eval.json")
    made_with = result["provenance"]
    if not made_with["commit"] or made_with["commit"].endswith("-dirty"):
        raise UserError(
            f"{workdir}/result.json is of commit {made_with['commit']}, which nobody can "
            "repeat: commit the changes and run it again in a workdir of its own"
        )
    if evaluation["step"] != result["step"]:
        raise UserError(
            f"{workdir}/eval.json is of step {evaluation['step']}, result.json of "
            f"{result['step']}: run mode eval with --config.eval.checkpoint=latest"
        )
    for made in (made_with, evaluation["provenance"]):
        made["command"] = _plain(made["command"])
    steps = sorted(int(p.stem) for p in workdir.glob("eval/*.json") if p.stem.isdigit())
    scores = {step: _read(workdir / f"eval/{step}.json")["mean_iou"] for step in steps}
    receipt = {
        "command": made_with["command"],
        "commit": made_with["commit"],
        "machine": machine,
        "mean_iou_by_step": scores,
    }
    files.make_folder(files.path(folder), "the receipt")
    records = {"result": result, "eval": evaluation, "receipt": receipt}
    for name, record in records.items():
        files.write_json(files.path(folder / f"{name}.json"), record)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} is not there: the run has not come to its end")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _plain(command: str) -> str:
    """As a person types it."""
    return shlex.join(["refinenet", *shlex.split(command)[1:]])


if __name__ == "__main__":
    try:
        keep(Path(sys.argv[1]), FOLDER / sys.argv[2], device())
    except UserError as error:
        sys.exit(str(error))
