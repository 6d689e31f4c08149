"""ADE20K, SceneParse150: 20,210 and 2,000 images, 150 classes.

    python -m refinenet_jax.main --config=configs/ade20k.py --config.data.manual_dir=DIR

DIR holds ADEChallengeData2016/ or ADEChallengeData2016.zip; without manual_dir it is
downloaded. Add --config.init_from=FILE, the ImageNet weights of the ResNet.

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: the value 0 of the files ("other") does not count; mean IoU over 150 classes.

Mean IoU to expect on val: 40.2 with resnet101 and 40.7 with resnet152 at several scales
(the paper's results, as later papers quote them). Not yet run here.
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet152")
    config.model.num_classes = 150
    config.data.name = "ade20k"
    config.train.num_steps = 100_000
    return config
