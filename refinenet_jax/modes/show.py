"""Mode show: the whole configuration, and what differs from the default."""

from etils import epath
from ml_collections import ConfigDict

from refinenet_jax.config import flatten
from refinenet_jax.settings import SETTINGS


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Prints each field on a line; starts nothing and writes nothing."""
    values = flatten(config)
    differing = 0
    lines = []
    for name, setting in SETTINGS.items():
        line = f"{name} = {values[name]!r}"
        if values[name] == setting.default:
            lines.append(f"  {line}")
        else:
            differing += 1
            lines.append(f"* {line}  (default {setting.default!r})")
    print(f"files would go to {workdir}")
    print(f"{len(values)} settings, {differing} of them (*) not as in the default:\n")
    print("\n".join(lines))
