"""Prints docs/settings.md: `python -m refinenet_jax.settings > docs/settings.md`."""

from refinenet_jax.settings.page import page

if __name__ == "__main__":
    print(page(), end="")
