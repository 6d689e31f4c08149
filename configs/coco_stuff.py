"""COCO-Stuff, 171 classes: 9,000 images for training and 1,000 for testing (10k, v1.1).

    python -m refinenet_jax.main --config=configs/coco_stuff.py --config.data.manual_dir=DIR

DIR holds cocostuff-10k-v1.1.zip or what is in it; without manual_dir it is downloaded
(2 GB). Add --config.init_from=FILE, the ImageNet weights of the ResNet.

The whole of COCO 2017, 118,287 and 5,000 images, from train2017.zip, val2017.zip and
stuffthingmaps_trainval2017.zip: --config.data.name=coco_stuff_164k
--config.data.eval_split=val --config.train.num_steps=300000.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: unlabelled pixels do not count; mean IoU over 171 classes.

Mean IoU to expect on test of 10k: 33.6 with resnet101 (as lists of results quote it; not
in the conference paper). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet101")
    config.model.num_classes = 171
    config.data.name = "coco_stuff_10k"
    config.data.eval_split = "test"
    return config
