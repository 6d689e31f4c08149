"""SUN RGB-D: 5,285 images for training and 5,050 for testing, 37 classes.

    python -m refinenet_jax.main --config=configs/sunrgbd.py --config.data.manual_dir=DIR

DIR holds SUNRGBD.zip and SUNRGBDtoolbox.zip, or what is in them; without manual_dir they
are downloaded. The labels are an HDF5 file: pip install -e '.[hdf5]'. Add
--config.init_from=FILE, the ImageNet weights of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: the value 0 of the files does not count; mean IoU over 37 classes.

Mean IoU to expect on test: 45.9 with resnet152 (the paper's result, as later papers
quote it). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet152")
    config.model.num_classes = 37
    config.data.name = "sunrgbd"
    config.data.eval_split = "test"
    return config
