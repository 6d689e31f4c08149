"""What --help prints. Nothing here imports jax, so that it comes at once."""

import ast
import textwrap
from collections.abc import Iterable, Mapping

from etils import epath

from refinenet_jax.errors import unknown
from refinenet_jax.settings import GROUPS, SETTINGS, Setting
from refinenet_jax.settings.network import VARIANTS

_WIDTH = 88


def overview(
    modes: Mapping[str, str],
    configs: Mapping[str, epath.Path],
    flags: Iterable[Setting],
) -> str:
    """The whole program on a page.

    Args:
        modes: what each does.
        configs: their files, whose first lines are shown.
        flags: all of them but the fields of the configuration.
    """
    groups = {name: text for name, text in GROUPS.items() if name}
    return "\n".join(
        [
            "RefineNet: semantic segmentation in JAX and Flax.",
            "",
            "  refinenet --config=CONFIG[:VARIANT] [--mode=MODE] [--workdir=DIR]",
            "            [--config.FIELD=VALUE ...]",
            "",
            "MODE",
            *_rows(modes),
            "",
            "CONFIG, or the path of one of your own",
            *_rows({name: _first_line(path) for name, path in configs.items()}),
            "",
            "VARIANT, another network than the config's own",
            *_wrapped(", ".join(VARIANTS)),
            "",
            "Flags",
            *_rows({f"--{flag.name}": flag.text for flag in flags}),
            "",
            f"FIELD, one of {len(SETTINGS)}: --help=all tells of each, --help=FIELD of one,",
            "--help=GROUP of a group; --mode=show prints what a command line sets them to",
            *_rows(groups),
        ]
    )


def about(topic: str) -> str:
    """Default, rule and text of the fields that a topic names.

    topic: "all", a group such as "optimizer", or a field such as "train.num_steps".

    Raises:
        UserError: there is neither group nor field of that name.
    """
    name = topic.removeprefix("config.")
    chosen = [
        setting
        for setting in SETTINGS.values()
        if name in ("all", setting.name) or setting.name.startswith(f"{name}.")
    ]
    if not chosen:
        groups = ["all", *filter(None, GROUPS)]
        raise unknown(
            f"--help={topic}",
            name,
            [*groups, *SETTINGS],
            listed=f"known: {', '.join(groups)} and each field",
        )
    lines = []
    for setting in chosen:
        lines.append(f"{setting.name} = {setting.default!r}")
        lines += _wrapped(setting.text, "    ")
        lines += _wrapped(f"Must be {setting.rule.text}.", "    ")
    return "\n".join(lines)


def _first_line(path: epath.Path) -> str:
    """Of a config's docstring; the file is not run."""
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]


def _rows(texts: Mapping[str, str]) -> list[str]:
    width = max(map(len, texts))
    return [
        line
        for name, text in texts.items()
        for line in textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
    ]


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)
