import dataclasses
import errno
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from flax import nnx
from PIL import Image

from refinenet_jax import Segmenter, files
from refinenet_jax.errors import UserError
from refinenet_jax.inference import large
from refinenet_jax.inference.finished import Finished
from refinenet_jax.inference.large import Overview, Pixels, Windows
from tests.tiny_segmenter import tiny_segmenter

REACH = 30  # of what stands in for a network, in pixels
CENTRES = np.array([70.3, 101.9, 127.2, 140.8, 190.1])
PALETTE = [(i, 2 * i, 255 - i) for i in range(len(CENTRES))]
SHAPE = (333, 475)


def sums(image):
    """Of the (2 REACH + 1)² pixels around each, beyond the border zeros; exact."""
    padded = np.pad(image[..., 0].astype(np.int64), REACH + 1)
    total = padded.cumsum(0).cumsum(1)
    edge = 2 * REACH + 1
    boxes = total[edge:] - total[:-edge]
    return (boxes[:, edge:] - boxes[:, :-edge])[:-1, :-1]


def probabilities(image):
    """float32 [H,W,5], of the mean brightness around each pixel."""
    distance = np.abs(sums(image)[..., None] / (2 * REACH + 1) ** 2 - CENTRES)
    shares = 1 / (1 + distance)
    return (shares / shares.sum(-1, keepdims=True)).astype(np.float32)


class Network:
    """Stands in for one: sees `REACH` pixels around each; counts its windows."""

    def __init__(self, size, most=10**9):
        self.size, self.most = size, most
        self.seen = 0

    def __call__(self, image):
        if self.seen == self.most:
            raise KeyboardInterrupt
        self.seen += 1
        assert max(image.shape) <= self.size
        shares = np.full((1, self.size, self.size, len(CENTRES)), 0.7, np.float32)
        shares[0, : image.shape[0], : image.shape[1]] = probabilities(image)
        return jnp.asarray(shares)


def picture(shape=SHAPE, seed=0):
    """Coarse and fine detail: uint8 [H,W,3]."""
    rng = np.random.default_rng(seed)
    coarse = np.kron(rng.integers(0, 256, (9, 9)), np.ones((60, 60)))
    fine = rng.integers(0, 256, shape)
    grey = (coarse[: shape[0], : shape[1]] + fine) / 2
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


WHOLE = probabilities(picture()).argmax(-1)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "field.tif"


def predict(pixels, target, windows, network=None, about="it", overviews=None):
    """Predicts; gives the classes in the file."""
    large.predict(
        Pixels(pixels),
        target,
        network or Network(windows.size),
        windows,
        about=about,
        palette=PALETTE,
        on_overview=(overviews if overviews is not None else []).append,
    )
    return tifffile.imread(target)


@pytest.mark.parametrize(
    ("size", "overlap", "blend"),
    [
        (192, 1 / 3, 0.0),
        (256, 0.5, 0.5),
        (320, 0.6, 0.5),
        (256, 0.75, 0.0),
        (512, 0.5, 0.5),
        (1024, 1 / 3, 0.5),
    ],
)
def test_where_the_margin_is_the_reach_it_is_as_the_whole(size, overlap, blend, target):
    windows = Windows.overlapping(size, overlap, blend)
    assert windows.margin >= REACH
    assert (blend == 0) == (windows.band == 0)
    for shape in (SHAPE, (64, 300), (31, 7), (257, 128)):
        pixels = picture()[: shape[0], : shape[1]]
        found = predict(pixels, target, windows)
        whole = probabilities(pixels).argmax(-1)
        assert len(np.unique(whole)) > 1 or shape == (31, 7)
        np.testing.assert_array_equal(found, whole)


def test_what_is_lost_where_it_is_not(target):
    lost = {}
    for overlap in (0.0, 0.25, 0.5):
        for blend in (0.0, 1.0):
            windows = Windows.overlapping(256, overlap, blend)
            found = predict(picture(), target, windows)
            lost[overlap, blend] = np.mean(found != WHOLE)
    assert lost[0.0, 0.0] > lost[0.25, 1.0] > lost[0.5, 1.0] > 0
    assert lost[0.25, 0.0] == lost[0.5, 0.0] == 0  # margins of 32 and 64


@pytest.mark.parametrize("size", [64, 192, 512, 1000])
@pytest.mark.parametrize("overlap", [0.0, 0.1, 1 / 3, 0.5, 0.9])
@pytest.mark.parametrize("blend", [0.0, 0.5, 1.0])
def test_windows_cover_and_share(size, overlap, blend):
    windows = Windows.overlapping(size, overlap, blend)
    assert 0 <= windows.band <= windows.tile
    assert windows.tile + windows.band + 2 * windows.margin == windows.size
    assert size <= windows.size < size + 64
    assert abs(windows.tile - windows.size * (1 - overlap)) <= 64
    for length in (1, 63, windows.size, windows.size + 1, 3000):
        total = np.zeros(length + 2 * windows.size)
        for number in range(windows.count(length)):
            start = windows.start(number, length)
            weights = windows.weights(number)
            begin = number * windows.tile
            total[begin : begin + len(weights)] += weights
            used = np.flatnonzero(weights) + begin
            used = used[used < length]
            end = min(start + windows.size, length)
            assert start % 32 == 0 and start <= used[0] and used[-1] < end
            assert start == 0 or used[0] - start >= windows.margin
            assert end == length or end - used[-1] > windows.margin
        np.testing.assert_allclose(total[:length], 1, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"overlap": 1.0}, {"overlap": -0.1}, {"blend": 2.0}]
)
def test_windows_that_cannot_be(changes):
    with pytest.raises(ValueError, match="window="):
        Windows.overlapping(**{"size": 64, "overlap": 0.5, "blend": 0.5} | changes)


SMALL = Windows.overlapping(192, 0.5, 0.5)  # 12 tiles of 128 in 3 rows


@pytest.mark.parametrize("seen", range(12))
def test_it_goes_on_where_it_was_broken_off(seen, target, capsys):
    undisturbed = predict(picture(), target, SMALL)
    network = Network(SMALL.size)
    target.unlink()
    with pytest.raises(KeyboardInterrupt):
        predict(picture(), target, SMALL, Network(SMALL.size, most=seen))
    assert not target.exists()
    capsys.readouterr()
    np.testing.assert_array_equal(
        predict(picture(), target, SMALL, network), undisturbed
    )
    rows_again = max(0, seen // 4 - 1)
    assert network.seen == 12 - 4 * rows_again
    said = "is predicted in 12 windows"
    assert (
        said + (f"; {seen} are there already" * (seen > 0)) in capsys.readouterr().out
    )
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("change", ["about", "windows", "shape"])
def test_nothing_of_another_prediction_is_taken(change, target):
    with pytest.raises(KeyboardInterrupt):
        predict(picture(seed=1), target, SMALL, Network(SMALL.size, most=9))
    windows, pixels, about = SMALL, picture(), "it"
    if change == "about":
        about = "something else"
    elif change == "windows":
        windows = Windows.overlapping(192, 0.5, 0.0)
    else:
        pixels = pixels[:-1]
    network = Network(SMALL.size)
    found = predict(pixels, target, windows, network, about)
    fresh = predict(pixels, target.with_name("fresh.tif"), windows)
    np.testing.assert_array_equal(found, fresh)
    assert network.seen >= 12


def test_the_overview(target):
    overviews = []
    pixels = np.kron(picture((2, 40)), np.ones((64, 64, 1), np.uint8))[:, :2500]
    network = Network(512)
    classes = predict(
        pixels, target, Windows.overlapping(512, 0.25, 0.5), network, "it", overviews
    )
    [overview] = overviews
    assert isinstance(overview, Overview)
    assert overview.image.shape == (64, 1250, 3)
    np.testing.assert_array_equal(overview.image, pixels[::2, ::2])
    np.testing.assert_array_equal(overview.label, classes[1::2, 1::2])


def test_a_full_disk_and_what_follows(target, monkeypatch):
    original = Finished.append

    def full(self, record):
        if len(self) == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, record)

    monkeypatch.setattr(Finished, "append", full)
    with pytest.raises(UserError) as error:
        predict(picture(), target, SMALL)
    assert str(error.value) == (
        f"cannot write field.tif into {target.parent} (No space left on device): make "
        "room there or choose another --workdir"
    )
    monkeypatch.undo()
    network = Network(SMALL.size)
    found = predict(picture(), target, SMALL, network)
    assert network.seen == 12  # the first row tells of the second
    np.testing.assert_array_equal(found, predict(picture(), target, SMALL))


def test_two_at_once(target):
    class Second(Network):
        def __call__(self, image):
            if self.seen == 1:
                with pytest.raises(UserError, match="predicting field goes on already"):
                    predict(picture(), target, SMALL)
            return super().__call__(image)

    predict(picture(), target, SMALL, Second(SMALL.size))


def test_in_a_bucket(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    target = bucket / "field.tif"
    with pytest.raises(KeyboardInterrupt):
        predict_to_bucket(target, Network(SMALL.size, most=9))
    network = Network(SMALL.size)
    predict_to_bucket(target, network)
    assert network.seen == 8
    with files.on_disk(target) as copy:
        expected = predict(picture(), tmp_path / "field.tif", SMALL)
        np.testing.assert_array_equal(tifffile.imread(copy), expected)
    assert not files.files_below(tmp_path / "cache")


def predict_to_bucket(target, network):
    large.predict(
        Pixels(picture()),
        target,
        network,
        SMALL,
        about="it",
        palette=PALETTE,
        on_overview=lambda _: None,
    )


KILLED = """
import os, sys
import numpy as np
from refinenet_jax import files
from tests.inference import large_test

most = int(sys.argv[2])
network = large_test.Network(large_test.SMALL.size)

def run(image):
    if network.seen == most:
        os.kill(os.getpid(), 9)
    return network(image)

large_test.predict_to_bucket(files.path(sys.argv[1]), run)
print(network.seen)
"""


@pytest.mark.slow
def test_killed_processes_go_on(target):
    """Each starts where one was killed, until it is done."""
    lefts = []
    for most in (5, 7, 100):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(target), str(most)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )
        lefts.append(done.returncode)
    assert lefts == [-signal.SIGKILL, -signal.SIGKILL, 0], done.stderr
    found = tifffile.imread(target)
    fresh = predict(picture(), target.with_name("fresh.tif"), SMALL)
    np.testing.assert_array_equal(found, fresh)


@pytest.fixture(scope="module")
def segmenter():
    """Sees less than 128 pixels around each; aligned corners would see a picture's size."""
    with tiny_segmenter(16, fusion_resize="bicubic") as segmenter:
        yield segmenter


@pytest.mark.slow
def test_a_real_network_says_what_it_says_of_the_whole(segmenter, tmp_path):
    pixels = np.kron(picture((192, 160)), np.ones((4, 4, 1), np.uint8))
    whole = segmenter.predict(pixels)
    target = tmp_path / "classes.tif"
    differing = {}
    for overlap in (0.0, 0.75):
        assert (Windows.overlapping(512, overlap, 0.5).margin == 128) == (overlap > 0)
        segmenter.predict_large(pixels, target, window=512, overlap=overlap)
        differing[overlap] = np.count_nonzero(tifffile.imread(target) != whole)
    assert differing[0.0] > 100
    assert differing[0.75] == 0


def test_a_tiff_is_read_by_window(segmenter, tmp_path, monkeypatch):
    pixels = np.kron(picture((30, 20)), np.ones((16, 16, 1), np.uint8))
    source, target = tmp_path / "field.tif", tmp_path / "classes.tif"
    scale = (33550, 12, 3, (0.5, 0.5, 0.0), True)
    tifffile.imwrite(
        source, pixels, photometric="rgb", tile=(64, 64), extratags=[scale]
    )
    segmenter.predict_large(pixels, tmp_path / "expected.tif", window=128)
    expected = tifffile.imread(tmp_path / "expected.tif")
    # Not read whole:
    monkeypatch.setattr(large, "pixels_of", None)
    overview = tmp_path / "overview.jpg"
    segmenter.predict_large(source, target, overview=overview, window=128)
    with tifffile.TiffFile(target) as file:
        page = file.pages.first
        np.testing.assert_array_equal(page.asarray(), expected)
        assert page.tags[33550].value == scale[3]
        assert page.colormap[:, 3].tolist() == [27 * 257, 3 * 257, 252 * 257]
    with Image.open(overview) as shown:
        assert shown.size[0] == 320 and shown.size[1] > 480


def test_another_network_is_told_from_this_one(segmenter):
    negated = nnx.clone(segmenter.model)
    params = nnx.state(negated, nnx.Param)
    nnx.update(negated, jax.tree.map(lambda x: -x, params))
    halved = dataclasses.replace(segmenter.metadata, dtype="bfloat16")
    protocol = segmenter._predictor.protocol
    same = segmenter._about(protocol)
    assert Segmenter(segmenter.model, segmenter.metadata)._about(protocol) == same
    for other in (
        Segmenter(negated, segmenter.metadata)._about(protocol),
        Segmenter(segmenter.model, halved)._about(protocol),
        segmenter._about(dataclasses.replace(protocol, flip=True)),
    ):
        assert other != same
