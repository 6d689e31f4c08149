"""The door: reads the command line and hands over to a mode.

    refinenet --config=NAME[:VARIANT] [--mode=MODE] [--workdir=DIR]
        [--config.FIELD=VALUE ...]

or `python -m refinenet_jax.main`. `--help` tells all names; see `usage.overview`.

Exit code 0: done; 2: something the person must change, said in one line; 1: a fault of
the program; 75: ended by SIGTERM or SIGINT, or because another process of the run was
gone, and the same command goes on (docs/preemption.md tells how schedulers are told).
Whatever can be said without jax is said before jax is imported.
"""

import argparse
import dataclasses
import errno
import importlib
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import logging as absl_logging
from ml_collections import ConfigDict

from refinenet_jax import config as configs
from refinenet_jax import files, preemption, usage
from refinenet_jax.config_check import check, check_field, check_value
from refinenet_jax.errors import UserError, unknown
from refinenet_jax.planning import apart, targets
from refinenet_jax.settings import SETTINGS, Setting
from refinenet_jax.settings.rules import Flag, OneOf, Text, Texts, Whole


@dataclasses.dataclass(frozen=True)
class _Mode:
    """A mode: the function `run` of a module, imported when it is asked for.

    Attributes:
      module: in refinenet_jax.modes.
      text: what it does.
      takes: flags whose values `run` takes after configuration and workdir.
      needs: the flag of these that must be given, as a message has it.
      computes: whether it needs the devices and the other processes.
    """

    module: str
    text: str
    takes: tuple[str, ...] = ()
    needs: str = ""
    computes: bool = True


_SAVERS = ("async_save", "save_finalize", "write_metadata_after_commits")
_IMAGES = "--images=FILE, FOLDER or 'GLOB'"
_MODES = {
    "train": _Mode(
        "train", "Trains, evaluates as it goes, and goes on where it ended."
    ),
    "eval": _Mode("evaluate", "Evaluates the workdir's network."),
    "predict": _Mode(
        "predict", "Segments images and videos.", takes=("images",), needs=_IMAGES
    ),
    "convert": _Mode(
        "convert",
        "Makes a workdir of a PyTorch checkpoint.",
        takes=("weights",),
        needs="--weights=FILE",
    ),
    "export": _Mode(
        "export", "Writes the network for other programs.", takes=("images",)
    ),
    "plan": _Mode(
        "plan",
        "Tells whether it compiles and fits, here or on chips elsewhere.",
        takes=("topology",),
    ),
    "demo": _Mode("demo", "Serves a page that segments what is dropped on it."),
    "check_data": _Mode(
        "check_data", "Looks the data over and reports its faults.", takes=("fix",)
    ),
    "show": _Mode(
        "show", "Prints all settings and what differs; starts nothing.", computes=False
    ),
}

_FLAGS = {
    flag.name: flag
    for flag in (
        Setting("config", "", Text(), "CONFIG[:VARIANT], see above."),
        Setting(
            "mode", "train", OneOf(tuple(_MODES)), "See above; train if not given."
        ),
        Setting("workdir", "", Text(), "All files go here; runs/CONFIG[_VARIANT]."),
        Setting(
            "images",
            (),
            Texts(),
            "Modes predict and export: a file, folder or 'glob'; may be given again.",
        ),
        Setting(
            "weights",
            None,
            Text(),
            "Mode convert: a PyTorch checkpoint, .pth, .safetensors, ..., see init_from.",
        ),
        Setting(
            "topology",
            None,
            Text("CHIP:SHAPE, such as v5e:2x4 or h100:8", r"[\w-]+:[\dxX]+"),
            "Mode plan: chips that are not attached, such as v5e:2x4 or h100:8.",
        ),
        Setting(
            "fix",
            None,
            Text(),
            "Mode check_data: a new folder for a mended copy of your own pictures.",
        ),
        Setting(
            "coordinator_address",
            None,
            Text("HOST:PORT", r"\S+:\d{1,5}"),
            "HOST:PORT of process 0, where there are several.",
        ),
        Setting("num_processes", None, Whole(1, 65536), "How many there are."),
        Setting("process_id", None, Whole(0, 65535), "Which of them this is, from 0."),
    )
}


def main(argv: Sequence[str]) -> None:
    """Runs one command line; argv[0] is the program.

    Raises:
        UserError: something the person must change.
    """
    given = _parse(argv)
    if "help" in given:
        topic = given["help"][-1]
        texts = {name: mode.text for name, mode in _MODES.items()}
        print(
            usage.about(topic)
            if topic
            else usage.overview(texts, configs.known(), _FLAGS.values())
        )
        return
    flags = {
        name: _value(f"--{name}", flag, given) if name in given else flag.default
        for name, flag in _FLAGS.items()
    }
    mode = _MODES[flags["mode"]]
    _check_flags(flags, mode)
    config, default_workdir = _configuration(flags["config"], given)
    workdir = files.path(flags["workdir"] or default_workdir)
    arguments = (config, workdir, *(flags[name] for name in mode.takes))
    if flags["topology"] and not apart.is_apart():
        topology = targets.parse(flags["topology"])
        targets.refuse_missing_compiler(topology)
        apart.run(argv[1:], topology)
        return
    if not mode.computes or flags["topology"]:
        _module(mode).run(*arguments)
        return
    # These import jax.
    from refinenet_jax.compiling import announced
    from refinenet_jax.processes import joined
    from refinenet_jax.provenance import provenance
    from refinenet_jax.tuning import tune

    process = (
        flags[name] for name in ("coordinator_address", "num_processes", "process_id")
    )
    with joined(*process), announced():
        tune()
        provenance()
        _module(mode).run(*arguments)


def _module(mode: _Mode) -> Any:
    return importlib.import_module(f"refinenet_jax.modes.{mode.module}")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parse(argv: Sequence[str]) -> dict[str, list[str]]:
    """All that is given, as text, by the name of the flag."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    common: dict[str, Any] = {"action": "append", "default": argparse.SUPPRESS}
    parser.add_argument("-h", "--help", nargs="?", const="", **common)
    for name in _FLAGS:
        parser.add_argument(f"--{name}", **common)
    for name, setting in SETTINGS.items():
        alone: dict[str, Any] = {}
        if isinstance(setting.rule, Flag):
            alone = {"nargs": "?", "const": "True"}
        parser.add_argument(f"--config.{name}", **alone, **common)
    given, extra = parser.parse_known_args(list(argv[1:]))
    if extra and "help" not in given:
        _refuse(extra[0])
    return vars(given)


def _refuse(argument: str) -> NoReturn:
    if not argument.startswith("-"):
        raise UserError(f"{argument} is no flag; flags begin with --")
    name = argument.partition("=")[0]
    if name.startswith("--config."):
        check_field(name.removeprefix("--config."))
    if name == "--only_check_args":  # absl's, which started a training all the same
        raise UserError("--only_check_args is --mode=show here: it starts nothing")
    raise unknown(name, name, [f"--{known}" for known in ("help", *_FLAGS)])


def _value(name: str, setting: Setting, given: dict[str, list[str]]) -> Any:
    """What is given for a flag or field, read and checked."""
    value = setting.rule.read(given[name.removeprefix("--")])
    check_value(name, value, setting.rule)
    return value


def _check_flags(flags: dict[str, Any], mode: _Mode) -> None:
    """Refuses flags that do not go together, and a mode without what it needs."""
    if mode.needs and not any(flags[name] for name in mode.takes):
        raise UserError(f"--mode={flags['mode']} needs {mode.needs}")
    if flags["topology"] and "topology" not in mode.takes:
        raise UserError("--topology goes with --mode=plan: nothing else runs elsewhere")
    if flags["fix"] and "fix" not in mode.takes:
        raise UserError("--fix goes with --mode=check_data: nothing else mends")
    address, count, index = (
        flags[name] for name in ("coordinator_address", "num_processes", "process_id")
    )
    if len({value is None for value in (address, count, index)}) > 1:
        raise UserError(
            "--coordinator_address, --num_processes and --process_id go together: "
            "give all three or none"
        )
    if count is not None and index >= count:
        raise UserError(
            f"--process_id={index} must be less than --num_processes={count}"
        )


def _configuration(name: str, given: dict[str, list[str]]) -> tuple[ConfigDict, str]:
    """The checked configuration, and where its files go if nothing else is said."""
    if not name:
        raise UserError(
            f"--config=NAME is missing; known: {', '.join(configs.known())}; --help "
            "tells more"
        )
    name, _, variant = name.partition(":")
    path = configs.locate(name)
    config = configs.load(path, variant)
    check(config)
    for field, setting in SETTINGS.items():
        if f"config.{field}" in given:
            value = _value(f"config.{field}", setting, given)
            config.update_from_flattened_dict({field: value})
    workdir = f"runs/{path.stem}_{variant}" if variant else f"runs/{path.stem}"
    return config, workdir


def _pass_over_savers(arguments: threading.ExceptHookArgs) -> None:
    """Orbax raises in the main thread as well what ended its own."""
    if not arguments.thread or arguments.thread.name not in _SAVERS:
        threading.__excepthook__(arguments)


# What no program can help, wherever it happens.
_OF_THE_MACHINE = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}
_AFTER_THAT = "see to that, and start again"


def run() -> None:
    """Runs the command line of this process and turns errors into exit codes."""
    # Orbax and others tell through absl what only their developers want to know, and
    # what went wrong twice: in the log, and by raising it.
    absl_logging.set_verbosity(absl_logging.FATAL)
    threading.excepthook = _pass_over_savers
    # Orbax leaves its other readers behind when one meets a damaged file.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with preemption.listening():
        try:
            main(sys.argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except preemption.Preempted as ended:
            print(f"{ended}; the same command goes on", file=sys.stderr)
            sys.exit(preemption.EXIT_CODE)
        except OSError as error:
            if error.errno not in _OF_THE_MACHINE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            print(f"error: {where}{error.strerror}: {_AFTER_THAT}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    run()
