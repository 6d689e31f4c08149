"""A trained network as one object: what it takes, gives, says and opens."""

import concurrent.futures
import contextlib
import inspect
import json
import re
import textwrap

import jax
import numpy as np
import PIL.Image
import pytest
from flax import nnx

from refinenet_jax import Segmenter, pictures
from refinenet_jax.checkpoints.metadata import Metadata
from refinenet_jax.checkpoints.store import Checkpoints
from refinenet_jax.data.images import read_image
from refinenet_jax.errors import UserError
from refinenet_jax.models.leaves import split_network
from refinenet_jax.weights import torch
from tests.random_network import random_light_resnet18

NUM_CLASSES = 5
SHAPES = ((50, 61), (65, 10), (33, 40), (64, 64), (1, 1), (70, 64))  # of two groups


def described(network):
    return Metadata(
        network.architecture,
        tuple(f"class {index}" for index in range(NUM_CLASSES)),
        tuple((40 * index, 9, 255 - 40 * index) for index in range(NUM_CLASSES)),
        dataset="shapes",
        size_multiple=64,
        step=7,
    )


@pytest.fixture(scope="module")
def network():
    """Random weights that give every class somewhere."""
    network = random_light_resnet18(
        NUM_CLASSES, seed=3, cascade="single", pooling_stages=1
    )
    kernel = network.decoder.classifier.kernel
    kernel[...] = kernel[...] - kernel[...].mean(axis=(0, 1, 2), keepdims=True)
    return network


@pytest.fixture(scope="module")
def segmenter(network):
    """Images of a list run in twos."""
    return Segmenter(network, described(network), batch_size=2)


@pytest.fixture(scope="module")
def workdir(network, tmp_path_factory):
    """What mode convert would have written."""
    workdir = tmp_path_factory.mktemp("run")
    _, params, batch_stats = split_network(network)
    with contextlib.closing(Checkpoints(workdir, keep_latest=1)) as checkpoints:
        checkpoints.save_network(params, batch_stats, described(network))
    return workdir


@pytest.fixture(scope="module")
def weights(segmenter, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "network.safetensors"
    segmenter.save(path)
    return path


def images(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in shapes]


def assert_same_weights(one, other):
    pairs = zip(
        *(jax.tree.leaves(nnx.state(s.model)) for s in (one, other)), strict=True
    )
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow  # compiles programs of several sizes
def test_threads_find_what_one_finds(network, segmenter):
    given = images(*SHAPES) * 3
    shared = Segmenter(network, described(network), batch_size=2)
    calls = [(shared.predict, image) for image in given]
    calls += [(shared.probabilities, image) for image in given[:4]]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda call: call[0](call[1]), calls))
    assert shared.compilations == 2 + 2
    labels, shares = found[: len(given)], found[len(given) :]
    for image, label in zip(given, labels, strict=True):
        assert np.array_equal(label, segmenter.predict(image))
    for image, share in zip(given, shares, strict=False):
        assert np.array_equal(share, segmenter.probabilities(image))


def test_a_list_gives_a_list_in_its_order(segmenter):
    given = images(*SHAPES)
    labels = segmenter.predict(given)
    assert len(labels) == len(given)
    for image, label in zip(given, labels, strict=True):
        assert label.shape == image.shape[:2]
        assert label.dtype == np.uint8
        assert np.array_equal(label, segmenter.predict(image))
    assert len(np.unique(labels[0])) > 1
    assert segmenter.predict([]) == []
    for label, shares in zip(
        labels[:3], segmenter.probabilities(given[:3]), strict=True
    ):
        assert shares.dtype == np.float32
        assert shares.shape == (*label.shape, NUM_CLASSES)
        np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
        assert np.array_equal(shares.argmax(-1), label)


def test_paths_and_images_of_pillow_are_pictures_too(segmenter, tmp_path):
    [image] = images((50, 61))
    picture = PIL.Image.fromarray(image)
    picture.getexif()[0x0112] = 6  # lies on its side
    path = tmp_path / "turned.png"
    picture.save(path, exif=picture.getexif())
    expected = segmenter.predict(np.ascontiguousarray(np.rot90(image, -1)))
    for form in (path, str(path), picture, PIL.Image.open(path)):
        assert np.array_equal(segmenter.predict(form), expected)
    mixed = segmenter.predict([image, path, picture])
    assert [label.shape for label in mixed] == [(50, 61), (61, 50), (61, 50)]


def test_an_overlay_shows_the_classes_and_names_them(segmenter):
    given = images((50, 61), (64, 64))
    overlays = segmenter.overlay(given)
    for image, overlay in zip(given, overlays, strict=True):
        height, width, _ = image.shape
        label = segmenter.predict(image)
        assert overlay.dtype == np.uint8
        assert overlay.shape[0] > height and overlay.shape[1:] == (width, 3)
        mixed = pictures.overlay(image, label, segmenter.palette)
        assert np.array_equal(overlay[:height], mixed)
        legend = {tuple(pixel) for pixel in overlay[height:].reshape(-1, 3).tolist()}
        shown = {i for i, colour in enumerate(segmenter.palette) if colour in legend}
        assert shown == set(label.flat)
    assert np.array_equal(segmenter.overlay(given[1]), overlays[1])
    distinct = segmenter.overlay(given[0], distinct=True)
    assert distinct.shape == overlays[0].shape
    assert not np.array_equal(distinct, overlays[0])


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 5, 3)), r"float64 \[4, 5, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"uint8 \[1, 4, 4, 3\]"),
        ([[1]], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_picture_is_refused(segmenter, wrong, found):
    for ask in (segmenter.predict, segmenter.probabilities, segmenter.overlay):
        with pytest.raises(ValueError, match=rf"uint8 \[H,W,3\] RGB.* is {found}$"):
            ask(wrong)


def test_files_that_are_no_picture_are_refused(segmenter, tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match=r"empty\.jpg cannot be decoded"):
        segmenter.predict(tmp_path / "empty.jpg")
    with pytest.raises(UserError, match=r"none\.jpg cannot be read"):
        segmenter.predict([str(tmp_path / "none.jpg")])


def test_it_says_what_it_is(segmenter, workdir, weights):
    expected = (
        "<Segmenter light_resnet18 of shapes, 5 classes (class 0, class 1, class 2 and "
        "2 more), step 7>"
    )
    assert repr(segmenter) == expected
    assert repr(Segmenter.from_weights(weights)) == expected
    converted = Segmenter(
        segmenter.model,
        Metadata.from_json(
            segmenter.metadata.to_json()
            | {
                "dataset": "",
                "weights": {"file": "voc.pth", "sha256": "", "source": ""},
            }
        ),
    )
    assert "of an unnamed data set" in repr(converted)
    assert "converted from voc.pth>" in repr(converted)
    assert "step 0>" in repr(Segmenter.from_checkpoint(workdir))


def test_a_saved_network_is_the_same_network(segmenter, weights, tmp_path):
    opened = Segmenter.from_weights(str(weights), batch_size=2)
    assert opened.metadata == segmenter.metadata
    assert_same_weights(opened, segmenter)
    [image] = images((50, 61))
    assert np.array_equal(opened.predict(image), segmenter.predict(image))
    opened.save(tmp_path / "again.safetensors")
    assert_same_weights(
        Segmenter.from_weights(tmp_path / "again.safetensors"), segmenter
    )
    with pytest.raises(UserError, match=r"network\.pth must end in \.safetensors"):
        opened.save(tmp_path / "network.pth")


def test_a_workdir_is_opened(segmenter, workdir, weights):
    opened = Segmenter.from_checkpoint(str(workdir), "latest")
    assert_same_weights(opened, segmenter)
    assert opened.class_names == segmenter.class_names
    assert opened.palette == segmenter.palette
    with pytest.raises(UserError, match="which='newest' is unknown; known: best, lat"):
        Segmenter.from_checkpoint(workdir, "newest")
    with pytest.raises(UserError, match=r"open it with Segmenter\.from_weights"):
        Segmenter.from_checkpoint(weights)
    with pytest.raises(UserError, match=r"open it with Segmenter\.from_checkpoint"):
        Segmenter.from_weights(workdir)


def test_the_arithmetic_can_be_chosen(workdir, weights):
    for opened in (
        Segmenter.from_checkpoint(workdir, dtype="bfloat16"),
        Segmenter.from_weights(weights, dtype="bfloat16"),
    ):
        assert opened.metadata.dtype == "bfloat16"
        x = jax.ShapeDtypeStruct((1, 33, 40, 3), np.float32)
        program = str(jax.make_jaxpr(opened.model)(x))
        assert "bf16" in program
    with pytest.raises(UserError, match="dtype='float15' is unknown; known: float32"):
        Segmenter.from_weights(weights, dtype="float15")


def test_files_that_are_not_ours_are_refused(segmenter, weights, tmp_path):
    path = tmp_path / "other.safetensors"
    tensors = torch.read(weights).tensors

    def refused(header, message, tensors=tensors):
        torch.write_safetensors(path, tensors, header)
        with pytest.raises(UserError, match=message) as error:
            Segmenter.from_weights(path)
        assert "\n" not in str(error.value)
        assert str(path) in str(error.value)

    refused({}, f"--mode=convert --weights={re.escape(str(path))}")
    ours = segmenter.metadata.to_json()
    earlier = {torch.HEADER: json.dumps(ours["architecture"])}
    refused(earlier, "by an earlier version .* anew with --mode=export")
    whole = {torch.HEADER: json.dumps(ours)}
    missing = dict(tensors)
    del missing["conv1.weight"], missing["layer1.0.conv1.weight"]
    refused(whole, "known network|missing", missing)
    backbone = {k: x for k, x in tensors.items() if k.startswith(("conv1", "bn1"))}
    backbone |= {k: x for k, x in tensors.items() if k.startswith("layer")}
    refused(whole, "holds a backbone only", backbone)
    path.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="is cut short"):
        Segmenter.from_weights(path)
    with pytest.raises(UserError, match=r"none\.safetensors is no file"):
        Segmenter.from_weights(tmp_path / "none.safetensors")
    pickle = tmp_path / "network.pth"
    pickle.write_bytes(b"?")
    with pytest.raises(UserError, match=r"--mode=convert --weights=\S+network\.pth"):
        Segmenter.from_weights(pickle)


def test_the_example_runs(workdir, tmp_path, monkeypatch):
    """As it stands in the docstring."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "default").symlink_to(workdir)
    [image] = images((33, 40))
    PIL.Image.fromarray(image).save("photo.jpg")
    text = inspect.getdoc(Segmenter)
    [example] = re.findall(r"\n\n((?: {4}.*\n|\n)+)\n`predict`", text)
    names: dict = {}
    exec(textwrap.dedent(example), names)  # noqa: S102
    assert np.array_equal(
        names["labels"], names["segmenter"].predict(read_image("photo.jpg"))
    )
    assert names["overlay"].shape[1:] == (40, 3)
