"""One setting: a row of the table."""

import dataclasses
from typing import Any

from refinenet_jax.settings.rules import Rule


@dataclasses.dataclass(frozen=True)
class Setting:
    """A field of the configuration.

    Attributes:
      name: in full, such as "train.num_steps".
      default: its value in the embedded job.
      rule: what it may be.
      text: what it does, in sentences.
    """

    name: str
    default: Any
    rule: Rule
    text: str

    @property
    def group(self) -> str:
        """What comes before the last dot; empty for a field of no group."""
        return self.name.rpartition(".")[0]
