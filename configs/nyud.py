"""NYUDv2: 795 images for training and 654 for testing, 40 classes of indoor scenes.

    python -m refinenet_jax.main --config=configs/nyud.py --config.data.manual_dir=DIR

DIR holds nyu_depth_v2_labeled.mat; without manual_dir it is downloaded (2.8 GB). It is
an HDF5 file: pip install -e '.[hdf5]'. Add --config.init_from=FILE, the ImageNet weights
of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: unlabelled pixels do not count; mean IoU over 40 classes. Whole pictures of
640×480; others cut the white border off.

Mean IoU to expect on test: 46.5 with resnet152 at several scales (the paper's result, as
later papers quote it); 41.7, 43.6 and 44.4 with light_resnet50, 101 and 152 at one scale
(DrSleep/light-weight-refinenet, README). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet152")
    config.model.num_classes = 40
    config.data.name = "nyudv2"
    config.data.eval_split = "test"
    return config
