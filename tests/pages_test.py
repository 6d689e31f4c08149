import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from refinenet_jax import pages

TEMPLATES = Path(pages.__file__).parent / "templates"


def test_a_picture_is_a_file_in_an_address():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 9, 3)).astype(np.uint8)
    address = pages.picture(pixels, "PNG")
    head, _, data = address.partition(",")
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(
        Image.open(io.BytesIO(base64.b64decode(data))), pixels
    )
    assert pages.picture(pixels, "JPEG").startswith("data:image/jpeg;base64,")


def test_templates_ask_for_nothing_outside_and_run_nothing():
    assert len(list(TEMPLATES.glob("*.html"))) >= 2
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script|https?:|@import|url\(|\bon\w+=", text), path


def report(name: str) -> dict[str, object]:
    finding = {"level": "error", "code": "x", "split": name, "message": name}
    return {
        "dataset": name,
        "verdict": name,
        "findings": [{**finding, "files": [name]}],
        "splits": {},
        "made_with": {},
    }


def test_text_is_never_markup():
    html = pages.render("check_data.html", report("<script>&\"'")).decode()
    assert "<script" not in html
    assert html.count("&lt;script&gt;&amp;&#34;&#39;") >= 4


def test_names_that_are_no_text():
    assert b"<code>a?.png</code>" in pages.render(
        "check_data.html", report("a\udcff.png")
    )


def test_a_page_in_a_browser(browser, tmp_path):
    path = tmp_path / "pages.html"
    path.write_bytes(pages.render("check_data.html", report("<b>bold</b> & more")))
    browser.open(path)
    assert browser.texts("h1") == ["<b>bold</b> & more"]
    assert browser.texts(".finding li") == ["<b>bold</b> & more"]
    assert browser.messages() == []
