"""PASCAL-Context: 4,998 and 5,105 images, 59 classes and background.

    python -m refinenet_jax.main --config=configs/pascal_context.py --config.data.manual_dir=DIR

DIR holds VOCtrainval_03-May-2010.tar and trainval.tar.gz (the 459 labels), or what is in
them; without manual_dir they are downloaded. Add --config.init_from=FILE, the ImageNet
weights of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: the paper's 60 classes, whatever is not one of the 59 being background. Many
later papers leave the background out: --config.data.name=pascal_context_59
--config.model.num_classes=59, where it does not count. The order of the classes is the
paper's and FCN's, VOC's twenty first.

Mean IoU to expect on val, 60 classes: 47.3 with resnet152 (the paper's result, as later
papers quote it); 45.1 and 45.8 with light_resnet101 and 152
(DrSleep/light-weight-refinenet, README). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet152")
    config.model.num_classes = 60
    config.data.name = "pascal_context"
    return config
