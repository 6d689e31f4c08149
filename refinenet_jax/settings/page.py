"""The table of settings as a page of the documentation."""

from refinenet_jax.settings import GROUPS, SETTINGS, Setting

_HEAD = """\
# Settings

Every field of the configuration with its default. A config file states what differs,
`--config.FIELD=VALUE` changes it on the command line, `--help=FIELD` prints what stands
here, and `--mode=show` prints what a command line gives and starts nothing. A value
that a rule refuses stops the program with one line before anything is begun.

Values are written as in Python, text without quotes: `--config.train.num_steps=1000`,
`'--config.eval.scales=(0.5, 1.0)'`, `--config.eval.flip=True`. Of a tuple, parts may be
given one by one: `--config.eval.scales=0.5 --config.eval.scales=1.0`.

This page is made from [refinenet_jax/settings](../refinenet_jax/settings) by
`python -m refinenet_jax.settings > docs/settings.md`.
"""


def page() -> str:
    """Markdown, a table for each group."""
    parts = [_HEAD]
    for group, title in GROUPS.items():
        rows = [setting for setting in SETTINGS.values() if setting.group == group]
        heading = f"`{group}`: {title}" if group else title.capitalize()
        parts.append(
            f"\n## {heading}\n\n"
            "| field | default | must be | |\n| --- | --- | --- | --- |\n"
            + "".join(map(_row, rows))
        )
    return "".join(parts)


def _row(setting: Setting) -> str:
    cells = (
        f"`{setting.name}`",
        f"`{setting.default!r}`",
        setting.rule.text,
        setting.text,
    )
    return f"| {' | '.join(cells)} |\n"
