"""CamVid as published with SegNet: 367 and 101 street scenes of 480×360, 11 classes.

    python -m refinenet_jax.main --config=configs/camvid.py --config.data.manual_dir=DIR

DIR is the folder CamVid of the SegNet tutorial; without manual_dir it is downloaded.

The paper has no CamVid; this recipe, from random weights with BatchNorm statistics over
the global batch, is ours. Not yet run in full.
"""

from refinenet_jax.config import ConfigDict, default


def get_config(variant: str | None = None) -> ConfigDict:
    """A light-weight RefineNet from random weights."""
    config = default()
    config.model.variant = variant or "light_resnet50"
    config.model.num_classes = 11

    config.data.name = "camvid"
    config.data.scale_range = (0.5, 1.5)
    config.data.crop_size = 352
    config.data.num_workers = 2

    config.train.num_steps = 10_000
    config.train.batch_size = 8
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    return config
