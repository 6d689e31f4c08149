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
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, values: Mapping[str, Any]) -> bytes:
    """Fills templates/NAME in with values; in NAME.html text is escaped."""
    text = _templates.get_template(template).render(values)
    # File names that are no UTF-8 reach Python as lone surrogates.
    return text.encode("utf-8", "replace")


def picture(pixels: np.ndarray, file_format: str) -> str:
    """uint8 [H,W,3] RGB → a data URI; file_format: "PNG" or "JPEG"."""
    data = base64.b64encode(encode(pixels, file_format)).decode("ascii")
    return f"data:image/{file_format.lower()};base64,{data}"
