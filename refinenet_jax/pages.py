"""Reports as pages that need nothing beside them: no script, no file, no network."""

import base64
from collections.abc import Mapping
from typing import Any

import jinja2
import numpy as np

from refinenet_jax.pictures import encode

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("refinenet_jax"),
    # File names and class names are other people's text, never markup.
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """Fills in one of templates/; text among the values is escaped."""
    text = _templates.get_template(template).render(values)
    # File names that are no UTF-8 reach Python as lone surrogates.
    return text.encode("utf-8", "replace")


def facts(values: Mapping[str, object]) -> dict[str, str]:
    """Values as text, a mapping among them as "key value, key value"."""
    told = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        told[name] = str(value)
    return told


def picture(pixels: np.ndarray, file_format: str) -> str:
    """uint8 [H,W,3] RGB → a data URI; file_format: "PNG" or "JPEG"."""
    data = base64.b64encode(encode(pixels, file_format)).decode("ascii")
    return f"data:image/{file_format.lower()};base64,{data}"
