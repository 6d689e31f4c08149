"""Prints how fast a picture becomes class ids, ours and others in one run.

    python benchmarks/predict.py --variant=light_resnet50 --size=512 --peer

One picture at a time, uint8 [H,W,3] in and uint8 [H,W] out. "in its bucket" is what
`Segmenter.predict` runs, with the picture's size traced along; "the bare network" is a
program for pictures of this size alone. With --peer, PyTorch does the same, eager and
compiled, on the GPU where jax has one; beside float32 on CPUs, ONNX Runtime and OpenVINO
run our own export where they are installed.
"""

import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx
from parts.tables import interleaved, machine, peer_device, table

from refinenet_jax.inference import onnx_programs
from refinenet_jax.inference.predictor import Buckets, Predictor
from refinenet_jax.inference.programs import whole_program
from refinenet_jax.inference.protocol import PLAIN
from refinenet_jax.models import VARIANTS, Architecture, RefineNet, in_inference
from refinenet_jax.models.folding import fold
from refinenet_jax.models.leaves import split_network
from refinenet_jax.sharding import one_device_layout
from refinenet_jax.tuning import tune

_VARIANT = flags.DEFINE_multi_enum(
    "variant", ["light_resnet50"], list(VARIANTS), "Network; may be given again"
)
_SIZE = flags.DEFINE_integer("size", 512, "Height and width of the picture")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Arithmetic")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Calls of each to time")
_PEER = flags.DEFINE_boolean("peer", False, "Others, too")
_COMPILE = flags.DEFINE_boolean("compile", True, "Of these, torch.compile, too")

_NUM_CLASSES = 21
Call = Callable[[], object]


def main(argv: list[str]) -> None:
    """Times and prints a table for each network."""
    del argv
    tune()
    print(f"{machine()}\n")
    size = _SIZE.value
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    for variant in _VARIANT.value:
        candidates = ours(variant, image)
        if _PEER.value:
            candidates |= peers(variant, image)
        seconds = interleaved(candidates, _ROUNDS.value)
        print(
            table(
                f"{variant}, {_DTYPE.value}, {size}²", seconds, "ours, in its bucket"
            ),
            "\n",
        )


def network_of(variant: str) -> RefineNet:
    """With random weights, in inference mode."""
    architecture = Architecture(variant, _NUM_CLASSES)
    dtype = jnp.dtype(_DTYPE.value)
    return in_inference(RefineNet(architecture, dtype=dtype, rngs=nnx.Rngs(0)))


def ours(variant: str, image: np.ndarray) -> dict[str, Call]:
    """The program of `Segmenter`, and the network alone."""
    network = network_of(variant)
    predictor = Predictor(
        network,
        batch_size=1,
        buckets=Buckets((image.shape[:2],), 32),
        protocol=PLAIN,
        layout=one_device_layout(),
    )
    _, *variables = split_network(network)
    predictor.load(*variables)
    structure, *folded = split_network(fold(nnx.clone(network)))
    alone = jax.jit(
        lambda variables, images: whole_program(structure.merge(*variables))(images)
    )
    return {
        "ours, in its bucket": lambda: predictor.predict([image])[0],
        "ours, the bare network": lambda: np.asarray(alone(folded, image[None])),
    }


def peers(variant: str, image: np.ndarray) -> dict[str, Call]:
    """PyTorch, and other runtimes on our export."""
    from parts import torch_peer

    threads = len(os.sched_getaffinity(0))
    device, dtype = peer_device(), _DTYPE.value
    model = torch_peer.network(variant, _NUM_CLASSES, threads, device)
    eager = torch_peer.predicting(model, dtype, compiled=False)
    found: dict[str, Call] = {"PyTorch, eager": lambda: eager(image)}
    if _COMPILE.value:
        compiled = torch_peer.predicting(model, dtype, compiled=True)
        found["PyTorch, torch.compile"] = lambda: compiled(image)
    if (device, dtype) != ("cpu", "float32") or not importlib.util.find_spec(
        "jax2onnx"
    ):
        return found
    network = network_of(variant)
    path = Path(tempfile.mkdtemp()) / "network.onnx"
    exported = onnx_programs.to_onnx(whole_program(network), image.shape[:2], {})
    path.write_bytes(exported)
    run = onnx_programs.load_onnx(path)
    found["ONNX Runtime, our export"] = lambda: run(image[None])
    if importlib.util.find_spec("openvino"):
        import openvino

        there = openvino.Core().compile_model(
            str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        found["OpenVINO, our export"] = lambda: there(image[None])[0]
    return found


if __name__ == "__main__":
    app.run(main)
