"""Configurations: the default, the published recipes, and files that state differences."""

import importlib.util
import traceback
from importlib import resources
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from refinenet_jax import files
from refinenet_jax.errors import UserError, unknown
from refinenet_jax.settings import SETTINGS

__all__ = ["ConfigDict", "default", "flatten", "known", "load", "locate", "published"]


def default() -> ConfigDict:
    """All fields with the values of the embedded job; a config states what differs."""
    config = ConfigDict()
    for setting in SETTINGS.values():
        *parents, name = setting.name.split(".")
        group = config
        for parent in parents:
            if parent not in group:
                group[parent] = ConfigDict()
            group = group[parent]
        group[name] = setting.default
    return config.lock()


def published(variant: str) -> ConfigDict:
    """The recipe that a network was published with, for any data set.

    RefineNet as the paper's code has it (guosheng/refinenet, demo_refinenet_train.m and
    its model type 1): SGD with momentum 0.9, learning rate 5e-4, a tenth of it for the
    backbone, weight decay 5e-4 on everything, BatchNorm statistics frozen, short edge in
    450..1100, scales 0.7, 0.8, ... 1.3, crops of 400 centred on a pixel of a random
    class, images drawn by class, loss at the resolution of the prediction. It differs
    in that it takes one image a step and lowers the rate by hand, where eight images
    and two planned drops are ours; and in the network, which is that of the PyTorch
    ports here. The authors' own has model.input_scales (1.2,), fusion_resize "bicubic",
    void_output, mean 128 and Caffe's ResNet.

    Light-Weight RefineNet as DrSleep/light-weight-refinenet trains it on NYUDv2
    (src/config.py): rates 5e-3 and 5e-4 that fall to a half and to a fifth (here a
    quarter), weight decay 1e-5, short edge at least 350, scales 0.5 to 2, crops of 500,
    loss at the resolution of the label. It takes six images a step.
    """
    config = default()
    config.model.variant = variant
    config.model.batch_norm = "frozen_statistics"

    config.data.num_workers = 4

    config.optimizer.name = "sgd"
    config.optimizer.encoder_multiplier = 0.1
    config.optimizer.clip_norm = 0.0
    config.optimizer.schedule = "step"

    config.train.num_steps = 40_000
    config.train.batch_size = 8
    config.train.log_every = 50
    config.train.eval_every = 2_000
    config.train.checkpoint_every = 1_000

    if variant.startswith("light_"):
        config.data.short_edge = (350, 100_000)
        config.data.scale_range = (0.5, 2.0)
        config.data.crop_size = 500
        config.optimizer.learning_rate = 5e-3
        config.optimizer.weight_decay = 1e-5
        config.optimizer.step_at = (1 / 3, 2 / 3)
        config.optimizer.step_factor = 0.5
    else:
        config.data.short_edge = (450, 1_100)
        config.data.scale_step = 0.1
        config.data.sampling = "class_balanced"
        config.data.crop = "class_centred"
        config.data.crop_size = 400
        config.loss.resolution = "prediction"
        config.optimizer.learning_rate = 5e-4
        config.optimizer.weight_decay = 5e-4
        config.optimizer.step_at = (0.6, 0.85)
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"train.num_steps": 300, ...}, every field by its full name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def known() -> dict[str, epath.Path]:
    """The configs that come with the package, by name."""
    folder = files.path(str(resources.files("refinenet_jax"))) / "configs"
    if not folder.is_dir():  # a checkout keeps them beside the package
        folder = folder.parent.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def locate(name: str) -> epath.Path:
    """The file of a config.

    Args:
        name: that of one that comes with the package, such as voc or configs/voc.py,
            from any folder; or the path of one's own, which goes first.

    Raises:
        UserError: there is none; the known names are listed.
    """
    path = files.path(name)
    if path.suffix == ".py" and path.is_file():
        return path
    stem = path.stem if path.suffix == ".py" else path.name
    if str(path.parent) in (".", "configs") and stem in known():
        return known()[stem]
    raise unknown(f"--config={name}", stem, list(known()))


def load(path: epath.Path, variant: str = "") -> ConfigDict:
    """What the function `get_config` of a file returns.

    Args:
        path: the file, which is run.
        variant: handed to get_config; empty: the config's own network.

    Raises:
        UserError: whatever goes wrong in there, with its line.
    """
    try:
        # A name of its own: a config may be called like a module, such as default.
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise ImportError("no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
        flatten(config)
    # A config is code of its own: whatever it raises names what is wrong with it.
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"--config={path}{_line(error, path)}: {text}") from error
    return config


def _line(error: Exception, path: epath.Path) -> str:
    """Where in the file it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f.lineno for f in frames if f.filename == str(path.absolute())]
    return f", line {lines[-1]}" if lines else ""
