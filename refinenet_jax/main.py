"""The door: reads the command line and hands over to a mode.

    python -m refinenet_jax.main --config=configs/NAME.py[:VARIANT] [--workdir=DIR]
        [--mode=train|eval|predict|convert|export|check_data] [--config.a.b=value ...]

Exit code 0: done; 2: something the person must change, said in one line; 1: a fault of
the program.
"""

import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from refinenet_jax import config as config_lib
from refinenet_jax import config_check, processes
from refinenet_jax.errors import UserError
from refinenet_jax.modes import check_data, convert, evaluate, export, predict, train
from refinenet_jax.provenance import provenance

_MODES = ("train", "eval", "predict", "convert", "export", "check_data")

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py[:VARIANT]")
_WORKDIR = flags.DEFINE_string("workdir", None, "All files go here; runs/NAME")
_MODE = flags.DEFINE_string("mode", "train", f"One of {', '.join(_MODES)}")
_IMAGES = flags.DEFINE_multi_string(
    "images",
    [],
    "Modes predict and export: a file, folder or glob; may be given again",
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Mode convert: a PyTorch checkpoint, .pth, .pth.tar, .safetensors"
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator_address", None, "HOST:PORT of process 0, where there are several"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0")


def main(argv: Sequence[str]) -> None:
    """Runs one command line; argv[0] is the program.

    Raises:
        UserError: something the person must change.
    """
    config = _parse(argv)
    processes.start_processes(
        _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    provenance()
    workdir = Path(_WORKDIR.value or _default_workdir(argv))
    if _MODE.value == "train":
        train.run(config, workdir)
    elif _MODE.value == "eval":
        evaluate.run(config, workdir)
    elif _MODE.value == "predict":
        predict.run(config, workdir, _IMAGES.value)
    elif _MODE.value == "convert":
        convert.run(config, workdir, _WEIGHTS.value)
    elif _MODE.value == "check_data":
        check_data.run(config, workdir)
    else:
        export.run(config, workdir, _IMAGES.value)


def _parse(argv: Sequence[str]) -> ConfigDict:
    """Fills the flags and returns the checked configuration."""
    for argument in argv[1:]:
        field = re.match(r"--?config\.([^=]*)", argument)
        if field:
            config_check.check_field(field[1])
    try:
        extra = flags.FLAGS(list(argv))[1:]
        config = _CONFIG.value
        if config is not None:
            config_lib.flatten(config)  # a file that is not there shows on first use
    # A config is code of its own: whatever it raises names what is wrong with it.
    except Exception as error:
        raise UserError(" ".join(str(error).split())) from error
    if extra:
        raise UserError(f"{extra[0]} is no flag; flags begin with --")
    if config is None:
        raise UserError("--config=configs/NAME.py is missing")
    if _MODE.value not in _MODES:
        raise UserError(f"--mode={_MODE.value} is unknown; known: {', '.join(_MODES)}")
    config_check.check(config)
    return config


def _default_workdir(argv: Sequence[str]) -> str:
    """configs/voc.py:resnet50 → runs/voc_resnet50."""
    filename = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, variant = filename.partition(":")
    name = Path(path).stem
    return f"runs/{name}_{variant}" if variant else f"runs/{name}"


def run() -> None:
    """Runs the command line of this process and turns errors into exit codes."""
    # Orbax and others tell through absl what only their developers want to know.
    absl_logging.set_verbosity(absl_logging.ERROR)
    # Orbax leaves its other readers behind when one meets a damaged file.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    app.define_help_flags()
    try:
        main(sys.argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    run()
