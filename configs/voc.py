"""PASCAL VOC 2012, 21 classes.

    python -m refinenet_jax.main --config=configs/voc.py --config.data.manual_dir=DIR
    python -m refinenet_jax.main --config=configs/voc.py:light_resnet50 ...

Add --config.init_from=FILE, the ImageNet weights of the ResNet, such as
resnet101-63fe2227.pth. DIR holds VOCdevkit/ or VOCtrainval_11-May-2012.tar, and benchmark.tgz for the split
train_aug; without manual_dir the VOC archive is downloaded (2 GB).

The full networks follow the paper's code (guosheng/refinenet,
demo_refinenet_train.m): SGD with momentum 0.9, learning rate 5e-4, a tenth of it for
the backbone, weight decay 5e-4, BatchNorm statistics frozen, short edge at least 450,
scales 0.7 to 1.3, crops of 400, loss at the resolution of the prediction. It differs in
that it takes one image a step and lowers the rate by hand (eight images and two planned
drops are ours), enlarges what the network sees by 1.2 (model.input_scales), subtracts
128 from every channel, has an output for void (model.void_output), resizes bicubically
(model.fusion_resize), has Caffe's ResNet (resnet101_caffe), and picks images and crops by
class.
Mean IoU to expect on val from ImageNet weights: 69.1 with resnet50 trained on train
alone (header of that script); 80.5 with resnet101 at one scale, trained with COCO and
SBD (DrSleep/refinenet-pytorch, README). Not yet run here.

The light-weight networks follow DrSleep/light-weight-refinenet (src/config.py, its
recipe for NYUDv2): rates 5e-3 and 5e-4 that fall to a half and to a fifth (here a
quarter), weight decay 1e-5, scales 0.5 to 2, crops of 500, loss at the resolution of
the label; it takes six images a step. Mean IoU on val that its README states for
ResNet-50, 101 and 152: 78.5, 80.3 and 82.1. Not yet run here.
"""

from refinenet_jax.config import ConfigDict, default


def get_config(variant: str | None = None) -> ConfigDict:
    """The recipe of the full or of the light-weight networks, by variant."""
    config = default()
    config.model.variant = variant or "resnet101"
    config.model.num_classes = 21
    config.model.batch_norm = "frozen_statistics"

    config.data.name = "voc2012"
    config.data.num_workers = 4

    config.optimizer.name = "sgd"
    config.optimizer.encoder_multiplier = 0.1
    config.optimizer.clip_norm = 0.0
    config.optimizer.schedule = "step"

    config.train.num_steps = 40_000
    config.train.batch_size = 8
    config.train.log_every = 50
    config.train.eval_every = 2_000
    config.train.checkpoint_every = 1_000

    if config.model.variant.startswith("light_"):
        config.data.short_edge = (350, 100_000)
        config.data.scale_range = (0.5, 2.0)
        config.data.crop_size = 500
        config.optimizer.learning_rate = 5e-3
        config.optimizer.weight_decay = 1e-5
        config.optimizer.step_at = (1 / 3, 2 / 3)
        config.optimizer.step_factor = 0.5
    else:
        config.data.short_edge = (450, 1_100)
        config.data.crop_size = 400
        config.loss.resolution = "prediction"
        config.optimizer.learning_rate = 5e-4
        config.optimizer.weight_decay = 5e-4
        config.optimizer.step_at = (0.6, 0.85)
    return config
