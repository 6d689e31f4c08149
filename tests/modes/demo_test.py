import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from refinenet_jax import config as config_lib
from refinenet_jax.errors import UserError
from refinenet_jax.modes import demo, predict

PHOTOGRAPH = (
    Path(__file__).parent.parent / "pictures/photographs/pascalcontext_2008_004203.jpg"
)


class Fake:
    """Takes bright pixels for sky, greener ones for grass and the rest for ground."""

    class_names = ("ground", "sky", "<b>grass</b>")
    compilations = 0
    palette = ((120, 80, 20), (90, 160, 230), (30, 160, 30))

    def probabilities(self, image):
        pixels = image.astype(np.float32) / 255
        scores = np.stack(
            [
                0.8 - pixels.mean(-1),
                pixels.min(-1),
                3 * pixels[..., 1] - pixels.sum(-1),
            ],
            axis=-1,
        )
        shares = np.exp(4 * scores)
        return shares / shares.sum(-1, keepdims=True)


class Compiling(Fake):
    def probabilities(self, image):
        self.compilations += 1
        return super().probabilities(image)


def make(max_megapixels=12.0):
    return demo.Demo(Fake(), max_megapixels=max_megapixels, colours_for_all=False)


def test_what_people_hand_in_is_answered(tmp_path):
    for name, content in (("bad.jpg", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    Image.new("1", (9000, 2000)).save(tmp_path / "large.png")
    names = ("bad.jpg", "empty.png", "large.png", "<i>.jpg")
    html = make().page([str(tmp_path / name) for name in names] + [str(PHOTOGRAPH)])
    assert "bad.jpg cannot be decoded" in html
    assert "empty.png" in html
    assert "large.png is larger than the 12 megapixels that this page takes" in html
    assert "&lt;i&gt;.jpg cannot be read" in html
    assert "&lt;b&gt;grass&lt;/b&gt;" in html
    assert str(tmp_path) not in html  # where files lie is nobody's business
    assert html.count('role="alert"') == 4
    assert html.count("<img") == 1


def test_probabilities_are_those_of_the_pixel():
    page = make()
    page.page([str(PHOTOGRAPH)])
    image = np.asarray(Image.open(PHOTOGRAPH))
    expected = Fake().probabilities(image)
    height, width, _ = image.shape
    for y, x in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
        found = page.probabilities("1", (x + 0.5) / width, (y + 0.5) / height)
        assert [share for _, share in found] == pytest.approx(
            sorted(expected[y, x].tolist(), reverse=True), abs=1e-3
        )
        assert found[0][0] == Fake.class_names[expected[y, x].argmax()]
    assert page.probabilities("1", 1.0, 1.0)
    assert page.probabilities("2", 0.5, 0.5) is None


def test_compiling_is_told():
    slow = demo.Demo(Compiling(), max_megapixels=12.0, colours_for_all=True)
    assert "compiling for this size included" in slow.page([str(PHOTOGRAPH)])
    assert "compiling" not in make().page([str(PHOTOGRAPH)])


def test_only_the_latest_results_are_kept_and_large_ones_thinned(monkeypatch):
    monkeypatch.setattr(demo, "_KEPT", 2)
    monkeypatch.setattr(demo, "_MOST_VALUES", 3 * 100 * 100)
    page = make()
    page.page([str(PHOTOGRAPH)] * 3)
    assert page.probabilities("1", 0.5, 0.5) is None
    assert page.probabilities("3", 0.99, 0.99)
    assert all(kept.size <= 30_000 for kept in page._results.values())


def test_the_network_is_opened_as_predict_opens_it(tmp_path, monkeypatch):
    asked = []

    def opened(*given, **options):
        asked.append((given, options))
        raise UserError("far enough")

    monkeypatch.setattr(demo.Segmenter, "from_checkpoint", opened)
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: True)
    config = config_lib.default()
    config.eval.update({"window": 96, "flip": True, "checkpoint": "latest"})
    for run in (
        lambda: demo.run(config, tmp_path),
        lambda: predict.run(config, tmp_path, [str(PHOTOGRAPH)]),
    ):
        with pytest.raises(UserError, match="far enough"):
            run()
    assert asked[0] == asked[1]
    assert asked[0][1]["protocol"].window == 96


def test_without_gradio_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'refinenet_jax\[demo\]'"):
        demo.run(config_lib.default(), tmp_path)


def test_a_port_that_is_taken_and_a_host_that_is_not_here():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} .*config.demo.port"):
            demo.serve(make(), "127.0.0.1", port, 1)
    with pytest.raises(UserError, match=r"cannot listen at 192.0.2.1:0"):
        demo.serve(make(), "192.0.2.1", 0, 1)


def test_by_default_nobody_else_can_reach_it():
    assert config_lib.default().demo.host == "127.0.0.1"


@pytest.fixture(scope="module")
def address():
    """Of a page that is served while these tests run; files up to 3 MB."""
    pytest.importorskip("gradio")
    found, known = [], threading.Event()

    def on_start(text):
        found.append(text)
        known.set()

    server = threading.Thread(
        target=demo.serve,
        args=(make(), "127.0.0.1", 0, 3.0, on_start),
        daemon=True,
    )
    server.start()
    assert known.wait(120)
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(found[0], timeout=5).read()
            return found[0]
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.first_cases(1)
@pytest.mark.parametrize("width", [390, 1400])
def test_a_photograph_in_a_browser(address, browser, width, tmp_path):
    from selenium.webdriver import ActionChains

    (tmp_path / "notes.txt").write_text("no picture")
    browser.open(address, width)
    [drop] = wait_for(lambda: browser.all("input[type=file][multiple]"))
    drop.send_keys(f"{PHOTOGRAPH}\n{tmp_path / 'notes.txt'}")
    [image] = wait_for(lambda: browser.all("figure.refinenet img"))
    wait_for(lambda: browser.natural_widths("figure.refinenet img")[0] > 0)
    photograph = Image.open(PHOTOGRAPH)
    assert browser.natural_widths("figure.refinenet img") == [photograph.width]
    legend = browser.texts("figure.refinenet li")
    assert {"ground", "sky", "<b>grass</b>"} >= {x.rsplit(" ", 2)[0] for x in legend}
    shares = [float(x.rsplit(" ", 2)[1]) for x in legend]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    [fault] = browser.texts(".fault")
    assert fault.startswith("image notes.txt cannot be decoded")
    [told] = browser.texts(".told > p:first-child")
    assert f"{photograph.width} × {photograph.height}, " in told
    assert told.endswith(" s")

    browser.driver.execute_script("arguments[0].scrollIntoView()", image)
    expected = Fake().probabilities(np.asarray(photograph))
    for across, down in ((0.25, 0.1), (0.6, 0.8)):
        size = image.size
        ActionChains(browser.driver).move_to_element_with_offset(
            image,
            round((across - 0.5) * size["width"]),
            round((down - 0.5) * size["height"]),
        ).perform()
        y, x = round(down * photograph.height), round(across * photograph.width)
        best = Fake.class_names[
            expected[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)).argmax()
        ]
        wait_for(lambda: (browser.texts(".shares td") or [""])[0] == best)  # noqa: B023
        cells = browser.texts(".shares td")
        percents = [float(cell.split()[0]) for cell in cells[1::2]]
        assert len(cells) == 2 * len(Fake.class_names)
        assert sum(percents) == pytest.approx(100, abs=0.3)
    assert browser.beyond_the_edge() == []


def test_a_file_that_is_too_large_is_refused(address, browser, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(3_500_000))
    browser.open(address)
    [drop] = wait_for(lambda: browser.all("input[type=file][multiple]"))
    drop.send_keys(str(tmp_path / "large.jpg"))
    wait_for(lambda: "maximum" in " ".join(browser.texts("body")).lower())
    assert browser.all("figure.refinenet") == []


def test_what_is_forgotten_is_not_found(address):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/probabilities?result=999&x=0&y=0")
    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(f"{address}/probabilities?result=1&x=a&y=0")
