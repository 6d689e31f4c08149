"""PASCAL VOC 2012, 21 classes: 1,464 and 1,449 images, 10,582 with SBD (train_aug).

    python -m refinenet_jax.main --config=configs/voc.py --config.data.manual_dir=DIR
    python -m refinenet_jax.main --config=configs/voc.py:light_resnet50 ...

Add --config.init_from=FILE, the ImageNet weights of the ResNet, such as
resnet101-63fe2227.pth. DIR holds VOCdevkit/ or VOCtrainval_11-May-2012.tar, and
benchmark.tgz for --config.data.train_split=train_aug; without manual_dir both are
downloaded (3.4 GB).

The recipe and its source: refinenet_jax/config.py, `published`.

Protocol: pixels labelled 255 (borders, difficult objects) do not count; mean IoU over
the 21 classes, background among them.

Mean IoU to expect on val from ImageNet weights: 69.1 with resnet50 trained on train
alone (header of demo_refinenet_train.m in guosheng/refinenet); 80.5 with resnet101 at
one scale, trained with COCO and SBD (DrSleep/refinenet-pytorch, README); 78.5, 80.3 and
82.1 with light_resnet50, 101 and 152, trained likewise (DrSleep/light-weight-refinenet,
README). The paper: 83.4 on test (abstract). Not yet run here.

The ports train on COCO first. To do so, mix it in, its classes made VOC's, and images
with fewer than 1,000 pixels of them left out:

    --config.data.mix="({'name': 'coco_stuff_164k', 'split': 'train', 'weight': 10.0,
    'manual_dir': COCO, 'class_map': 'coco_to_voc', 'min_pixels': 1000},)"
"""

from refinenet_jax.config import ConfigDict, published


def get_config(variant: str | None = None) -> ConfigDict:
    """The published recipe; `variant` names another network."""
    config = published(variant or "resnet101")
    config.model.num_classes = 21
    config.data.name = "voc2012"
    return config
