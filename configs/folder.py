"""Your own pictures.

    python -m refinenet_jax.main --config=configs/folder.py --config.data.manual_dir=DIR

With --mode=check_data it looks the data over first, and draws the labels on pictures.

DIR holds images/, labels/, classes.txt with the name of a class on each line, and
train.txt and val.txt with the names of the images; or images/train/, labels/train/,
images/val/, labels/val/; or train/images/, train/labels/, val/images/, val/labels/.
Labels are PNG files of class ids, or of colours, see config.data.folder.

The recipe, from random weights or, better, from --config.init_from, is ours: a
light-weight RefineNet, AdamW, scales 0.5 to 2, some jitter of the colours. Images
smaller than the crop are padded.
"""

from refinenet_jax.config import ConfigDict, default


def get_config(variant: str | None = None) -> ConfigDict:
    """A light-weight RefineNet; `variant` names another network."""
    config = default()
    config.model.variant = variant or "light_resnet50"
    config.model.num_classes = 0

    config.data.name = "folder"
    config.data.scale_range = (0.5, 2.0)
    config.data.crop_size = 384
    config.data.colour_jitter = (0.3, 0.3, 0.3, 0.05)
    config.data.num_workers = 2

    config.optimizer.learning_rate = 1e-3

    config.train.num_steps = 5_000
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    return config
