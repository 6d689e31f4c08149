"""PASCAL Person-Part: 1,716 and 1,817 images, six parts of the body and background.

    python -m refinenet_jax.main --config=configs/person_part.py --config.data.manual_dir=DIR

DIR holds VOCtrainval_03-May-2010.tar and pascal_person_part.zip, or what is in them;
without manual_dir they are downloaded. Add --config.init_from=FILE, the ImageNet
weights of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: mean IoU over the 7 classes, background among them.

Mean IoU to expect on val: 64.9, 66.7 and 67.6 with light_resnet50, 101 and 152
(DrSleep/light-weight-refinenet, README). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet101")
    config.model.num_classes = 7
    config.data.name = "person_part"
    return config
