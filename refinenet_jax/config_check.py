"""Whether a configuration, a field or a value is what the table of settings says."""

from typing import Any

from ml_collections import ConfigDict

from refinenet_jax.config import flatten
from refinenet_jax.errors import UserError, unknown
from refinenet_jax.settings import GROUPS, SETTINGS
from refinenet_jax.settings.rules import OneOf, Rule

_LONGEST = 200  # characters of a value in a message


def check(config: ConfigDict) -> None:
    """Raises UserError for the first field that is unknown, missing or cannot be right.

    What a rule alone cannot know (splits, files) is checked by what uses it.
    """
    values = flatten(config)
    for field in values:
        check_field(field)
    for name, setting in SETTINGS.items():
        if name not in values:
            raise UserError(
                f"config.{name} is missing: begin a config with "
                "refinenet_jax.config.default()"
            )
        check_value(f"config.{name}", values[name], setting.rule)


def check_value(name: str, value: Any, rule: Rule) -> None:
    """Raises UserError where a rule does not hold.

    name: of the flag or field, as messages have it.
    """
    if rule.holds(value):
        return
    shown = repr(value)
    if name.startswith("--") and str(value).isprintable():
        shown = str(value)  # as it was typed
    if len(shown) > _LONGEST:
        shown = f"{shown[:_LONGEST]}..."
    shown = f"{name}={shown}"
    if isinstance(rule, OneOf) and isinstance(value, str):
        raise unknown(shown, value, rule.known)
    raise UserError(f"{shown} must be {rule.text}")


def check_field(path: str) -> None:
    """Raises UserError where `path`, such as "train.num_steps", names no field."""
    if path in SETTINGS:
        return
    if path in GROUPS:
        raise UserError(
            f"config.{path} is a group: set one of its fields, {_listed(path)}"
        )
    group = path
    while group not in GROUPS:
        group = group.rpartition(".")[0]
    below = path.removeprefix(group).removeprefix(".")
    wrong = f"{group}.{below.split('.')[0]}".removeprefix(".")
    raise unknown(
        f"config.{path if wrong in SETTINGS else wrong}",
        path,
        SETTINGS,
        listed=f"known there: {_listed(group)}",
    )


def _listed(group: str) -> str:
    """The fields and groups right below a group."""
    below = f"{group}." if group else ""
    names = {
        name.removeprefix(below).split(".")[0]
        for name in SETTINGS
        if name.startswith(below)
    }
    return ", ".join(sorted(names))
