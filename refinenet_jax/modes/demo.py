"""Mode demo: a page in the browser that segments pictures, for people to try."""

import collections
import importlib.util
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import numpy as np
import PIL.Image
from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files, log, pages
from refinenet_jax.assembly.data import shown_of
from refinenet_jax.assembly.evaluation import protocol_of
from refinenet_jax.data.images import read_image
from refinenet_jax.data.picture_kind import RGB
from refinenet_jax.errors import UserError
from refinenet_jax.inference.inputs import kind_of
from refinenet_jax.palettes import distinct
from refinenet_jax.pictures import overlay
from refinenet_jax.segmenter import Segmenter

_KEPT = 12  # results whose probabilities can be asked for
_MOST_VALUES = 32_000_000  # probabilities kept of a picture; of more, every other
_LONGEST = 1600  # pixels, of a picture on the page
_SHOWN = 25  # classes under the pointer; the others are the least likely
_FORGOTTEN = 3600  # seconds after which uploaded files are removed


def run(config: ConfigDict, workdir: epath.Path) -> None:
    """Serves the page until it is interrupted. Of several processes the first works.

    Raises:
        UserError: gradio is not installed, no checkpoint, or an address that is taken.
    """
    if jax.process_index() != 0:
        return
    if not importlib.util.find_spec("gradio"):
        raise UserError(
            "--mode=demo needs gradio: pip install 'refinenet_jax[demo]' (in a checkout: "
            "pip install -e '.[demo]')"
        )
    segmenter = Segmenter.from_checkpoint(
        workdir,
        config.eval.checkpoint,
        protocol=protocol_of(config),
        buckets=config.eval.buckets,
        shown=shown_of(config),
    )
    kind = kind_of(segmenter.metadata.architecture)
    if kind != RGB:
        raise UserError(
            f"--mode=demo is for photographs, and the network of {workdir} sees {kind}: "
            "use --mode=predict"
        )
    demo = Demo(
        segmenter,
        max_megapixels=config.demo.max_megapixels,
        colours_for_all=config.predict.palette == "distinct",
    )
    serve(demo, config.demo.host, config.demo.port, config.demo.max_megabytes)


class Demo:
    """Segments the files that people hand in, and remembers the latest results.

    Args:
        segmenter: what predicts.
        max_megapixels: larger pictures are refused.
        colours_for_all: overlays have colours that all people tell apart.
    """

    def __init__(
        self, segmenter: Segmenter, *, max_megapixels: float, colours_for_all: bool
    ):
        self._segmenter = segmenter
        self._max_megapixels = max_megapixels
        self._outlined = colours_for_all
        self._palette = segmenter.palette
        if colours_for_all:
            self._palette = distinct(len(segmenter.palette))
        self._results: collections.OrderedDict[str, np.ndarray] = (
            collections.OrderedDict()
        )
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def page(self, paths: Sequence[str]) -> str:
        """Results of files as HTML; what cannot be read is answered in one line."""
        results = [self._result(path) for path in paths]
        return pages.render("demo.html", {"results": results}).decode()

    def probabilities(
        self, result: str, x: float, y: float
    ) -> list[tuple[str, float]] | None:
        """The likeliest classes at a place, the likeliest first.

        Args:
            result: its number on the page.
            x: 0 at the left edge, 1 at the right one.
            y: 0 at the upper edge, 1 at the lower one.

        Returns:
            Names and probabilities; None where the result is forgotten.
        """
        with self._lock:
            shares = self._results.get(result)
        if shares is None:
            return None
        places = [
            min(max(int(share * size), 0), size - 1)
            for share, size in zip((y, x), shares.shape, strict=False)
        ]
        here = shares[places[0], places[1]]
        order = np.argsort(-here, kind="stable")[:_SHOWN].tolist()
        return [(self._segmenter.class_names[i], float(here[i])) for i in order]

    def _result(self, path: str) -> dict[str, Any]:
        """What the template shows of a file."""
        name = files.path(path).name
        try:
            self._refuse_large(path, name)
            image = read_image(path)
            start, before = time.monotonic(), self._segmenter.compilations
            shares = self._segmenter.probabilities(image)
            seconds = time.monotonic() - start
        except UserError as error:
            return {"fault": str(error).replace(path, name)}
        label = shares.argmax(axis=-1).astype(np.uint8)
        drawn = overlay(image, label, self._palette, outlined=self._outlined)
        return {
            "fault": "",
            "name": name,
            "width": image.shape[1],
            "height": image.shape[0],
            "seconds": f"{seconds:.2f}",
            # Once for each padded size, and minutes where the network is large.
            "compiled": self._segmenter.compilations > before,
            "picture": pages.picture(_no_longer_than(drawn, _LONGEST), "JPEG"),
            "legend": self._legend(label),
            "id": self._remember(shares),
        }

    def _refuse_large(self, path: str, name: str) -> None:
        """Before a file that is small, but decodes to gigabytes, is decoded."""
        try:
            with PIL.Image.open(path) as picture:
                width, height = picture.size
        except PIL.Image.DecompressionBombError:
            width = height = 10**9
        except (OSError, ValueError, SyntaxError):
            return  # reading it says more
        if width * height > 1e6 * self._max_megapixels:
            raise UserError(
                f"{name} is larger than the {self._max_megapixels:g} megapixels that "
                "this page takes: make it smaller, or use --mode=predict"
            )

    def _legend(self, label: np.ndarray) -> list[dict[str, Any]]:
        """The classes that occur, those with the most pixels first."""
        counts = np.bincount(label.ravel(), minlength=len(self._palette))
        order = np.argsort(-counts, kind="stable").tolist()
        return [
            {
                "name": self._segmenter.class_names[index],
                "colour": self._palette[index],
                "share": f"{100 * counts[index] / label.size:.1f}",
            }
            for index in order
            if counts[index]
        ]

    def _remember(self, shares: np.ndarray) -> str:
        step = 1
        while shares[::step, ::step].size > _MOST_VALUES:
            step += 1
        kept = shares[::step, ::step].astype(np.float16)
        with self._lock:
            number = str(next(self._numbers))
            self._results[number] = kept
            if len(self._results) > _KEPT:
                self._results.popitem(last=False)
        return number


def serve(
    demo: Demo,
    host: str,
    port: int,
    max_megabytes: float,
    on_start: Callable[[str], None] = lambda address: None,
) -> None:
    """Answers browsers until the process is interrupted.

    Args:
        demo: what segments.
        host: name or number of the interface to listen at.
        port: of it; 0: one that is free.
        max_megabytes: larger files are refused before they are read.
        on_start: is told the address.

    Raises:
        UserError: the address is taken or none of this machine.
    """
    listening = _listen(host, port)
    # Nothing is told to anybody, and nothing is asked for.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import uvicorn

    app = _application(demo, max_megabytes)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", loop="asyncio", lifespan="on")
    )
    address = f"http://{host}:{listening.getsockname()[1]}"
    log.say(f"open {address} in a browser; Ctrl-C ends it")
    on_start(address)
    with listening:
        server.run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}): choose another "
            "config.demo.port or config.demo.host"
        ) from error
    return listening


def _application(demo: Demo, max_megabytes: float) -> Any:
    """Gradio's page, and beside it the answers to where the pointer is."""
    import fastapi
    import gradio

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/probabilities")
    def probabilities(result: str, x: float, y: float) -> list[tuple[str, float]]:
        found = demo.probabilities(result, x, y)
        if found is None:
            raise fastapi.HTTPException(404)
        return found

    with gradio.Blocks(
        title="refinenet_jax",
        analytics_enabled=False,
        delete_cache=(_FORGOTTEN, _FORGOTTEN),
    ) as blocks:
        dropped = gradio.Files(label="Drop pictures here, or choose some")
        with gradio.Accordion("Camera", open=False):
            camera = gradio.Image(
                sources=["webcam"], type="filepath", label="Take a picture"
            )
        shown = gradio.HTML(demo.page(()))
        dropped.upload(demo.page, dropped, shown)
        camera.input(lambda path: demo.page([path] if path else []), camera, shown)
    template = files.path(__file__).parent.parent / "templates"
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="",
        max_file_size=round(1e6 * max_megabytes),
        footer_links=[],
        ssr_mode=False,
        theme=gradio.themes.Base(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=(template / "demo.css").read_text(),
        head=f"<script>{(template / 'demo.js').read_text()}</script>",
    )


def _no_longer_than(pixels: np.ndarray, longest: int) -> np.ndarray:
    height, width, _ = pixels.shape
    factor = longest / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(factor * width)), max(1, round(factor * height)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
