"""Cityscapes, fine annotations, 19 classes: 2,975 and 500 images of 2048×1024.

    python -m refinenet_jax.main --config=configs/cityscapes.py --config.data.manual_dir=DIR

DIR holds leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, which need a login
at www.cityscapes-dataset.com, or leftImg8bit/ and gtFine/. Add
--config.init_from=FILE, the ImageNet weights of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`. Crops of 600, as the
paper's code has for this data set.

Protocol: the label ids outside the 19 classes do not count, neither as truth nor as
wrong predictions; mean IoU over 19 classes.

Mean IoU to expect: 73.6 on test with resnet101 (the paper's result, as the benchmark's
lists quote it). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet101")
    config.model.num_classes = 19
    config.data.name = "cityscapes"
    config.data.crop_size = 600
    config.eval.batch_size = 1
    return config
