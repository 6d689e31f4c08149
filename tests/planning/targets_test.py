"""--topology, and the compilers that it needs."""

import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.planning import targets
from refinenet_jax.planning.chips import CHIPS, chip_of
from refinenet_jax.planning.gpus import target_config


@pytest.mark.parametrize(
    ("name", "chip", "shape"),
    [("v5e:2x4", "v5e", (2, 4)), ("V5P:2x2X1", "v5p", (2, 2, 1)), ("l4:1", "l4", (1,))],
)
def test_a_topology_is_a_chip_and_a_shape(name, chip, shape):
    topology = targets.parse(name)
    assert (topology.chip.name, topology.shape) == (chip, shape)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("h10:1", "known: v2.*did you mean h100"),
        ("h100", "must be a chip, a colon"),
        ("v5e:0x4", "must be a chip, a colon"),
        ("v5e:2x4x", "must be a chip, a colon"),
        ("h100:16", "h100:1 to h100:8"),
        ("h100:2x4", "h100:1 to h100:8"),
    ],
)
def test_other_names_are_refused(name, message):
    with pytest.raises(UserError, match=f"--topology={name}.*{message}"):
        targets.parse(name)


CUDA12 = {"jax-cuda12-plugin": "9.1", "nvidia-cuda-nvcc-cu12": "12.9"}


@pytest.mark.parametrize(
    ("name", "installed", "message"),
    [
        ("v5e:2x4", {}, r"libtpu: pip install 'refinenet_jax\[plan\]'"),
        ("v5e:2x4", {"libtpu": "0.1"}, ""),
        ("h100:1", {"libtpu": "0.1"}, r"for CUDA.*refinenet_jax\[plan\]"),
        ("h100:1", {**CUDA12, "jax": "9.2"}, "jax-cuda12-plugin 9.1 is not of jax's"),
        ("h100:1", {**CUDA12, "jax": "9.1"}, ""),
        (
            "h100:1",
            {"jax-cuda13-plugin": "9.1", "nvidia-cuda-nvcc": "13.0", "jax": "9.1"},
            "",
        ),
    ],
)
def test_a_missing_compiler_is_told_with_the_extra(
    name, installed, message, monkeypatch
):
    monkeypatch.setattr(targets, "version_of", installed.get)
    topology = targets.parse(name)
    if not message:
        targets.refuse_missing_compiler(topology)
        return
    with pytest.raises(UserError, match=message):
        targets.refuse_missing_compiler(topology)


def test_the_devices_of_this_machine():
    target = targets.attached(2**30)
    assert (target.platform, target.topology, target.chip) == ("cpu", None, None)
    assert target.devices_of_one_process == list(target.devices)


def test_chips_are_found_by_what_jax_calls_them():
    assert chip_of("TPU v5 lite") is CHIPS["v5e"]
    assert chip_of("TPU v5") is CHIPS["v5p"]
    assert chip_of("cpu") is None
    for chip in CHIPS.values():
        assert chip.source
        if chip.platform == "gpu":
            assert f'"{chip.kinds[0]}"' in target_config(chip.name)


def test_a_device_can_be_a_part_of_a_chip():
    half = CHIPS["v3"].divided()
    assert half.memory * 2 == CHIPS["v3"].memory
    assert half.bfloat16 * 2 == CHIPS["v3"].bfloat16
    assert CHIPS["v4"].divided() == CHIPS["v4"]


def test_the_share_of_a_gpu_is_a_number(monkeypatch):
    name = "XLA_PYTHON_CLIENT_MEM_FRACTION"
    for given in ("all", "0", "1.5"):
        monkeypatch.setenv(name, given)
        with pytest.raises(UserError, match=f"{name}='{given}' must be a number"):
            targets._gpu_share()
    monkeypatch.setenv(name, ".9")
    assert targets._gpu_share() == 0.9
