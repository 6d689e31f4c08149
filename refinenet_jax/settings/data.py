"""The settings of the data and of its augmentation."""

from refinenet_jax.settings.rules import (
    Each,
    Number,
    OneOf,
    OneOfTable,
    Parts,
    Record,
    Text,
    Whole,
)
from refinenet_jax.settings.setting import Setting

# Those of data/datasets.py, which this list is compared with by a test: help needs no
# TFDS.
DATASETS = (
    "ade20k",
    "camvid",
    "cityscapes",
    "coco_stuff_10k",
    "coco_stuff_164k",
    "folder",
    "nyudv2",
    "pascal_context",
    "pascal_context_59",
    "person_part",
    "shapes",
    "sunrgbd",
    "voc2012",
)

_DATASET = OneOfTable(DATASETS, table="refinenet_jax.data.datasets.DATASETS")
COUNT = Whole(0, 2**31 - 1)
WEIGHT = Number(above=0, most=1e6)
SHORT_EDGE = Each(Whole(1, 100_000), 2, 2, rising=True, example="(450, 1100)")

DATA = (
    Setting("data.name", "shapes", _DATASET, "The data set."),
    Setting(
        "data.dir",
        "",
        Text(),
        "Prepared data, on disk or gs://; empty: where TFDS keeps it.",
    ),
    Setting(
        "data.cache_dir",
        "",
        Text("a path on disk", r"(?!\w+:/).*"),
        "Folder on the host's own disk that prepared data is copied to, once; empty: it "
        "is read where it is.",
    ),
    Setting(
        "data.manual_dir",
        "",
        Text(),
        "The data set as its authors ship it, on disk or gs://; empty: download it.",
    ),
    Setting("data.train_split", "train", Text(), "What is trained on."),
    Setting("data.eval_split", "val", Text(), "What is evaluated on."),
    Setting(
        "data.damaged",
        "stop",
        OneOf(("stop", "skip")),
        "At a file that cannot be decoded; skip counts it.",
    ),
    Setting(
        "data.not_finite",
        "refuse",
        OneOf(("refuse", "ignore")),
        "At NaN or infinity in float pictures; with ignore such pixels do not count, "
        "and the network sees the mean.",
    ),
    Setting(
        "data.shown_channels",
        (),
        Each(Whole(0, 15), 1, 3, empty=True, example="(3, 2, 1)"),
        "Which channels overlays show of pictures that are not RGB, counted from 0: one "
        "in grey, or three; (): the first three, or of two the first.",
    ),
    Setting(
        "data.shown_percentiles",
        (2.0, 98.0),
        Each(Number(0, 100), 2, 2, rising=True, example="(0, 100)"),
        "What of these is shown black, and what white.",
    ),
    Setting(
        "data.check_images",
        32,
        COUNT,
        "So many of each split are checked before training; 0: none.",
    ),
    Setting(
        "data.sampling",
        "uniform",
        OneOf(("uniform", "class_balanced")),
        "How images are drawn; class_balanced as in the paper's code.",
    ),
    Setting(
        "data.images_per_class",
        100,
        Whole(1, 1_000_000),
        "Of an epoch, where sampling is class_balanced.",
    ),
    Setting(
        "data.weight",
        1.0,
        WEIGHT,
        "Of this data set, where others are mixed in.",
    ),
    Setting(
        "data.mix",
        (),
        Each(
            Record(
                {
                    "name": _DATASET,
                    "split": Text(),
                    "weight": WEIGHT,
                    "manual_dir": Text(),
                    "class_map": Text(),
                    "min_pixels": COUNT,
                }
            ),
            0,
            64,
        ),
        "Data sets that are mixed in. Their classes become those of data.name by their "
        "class_map (data/class_maps.py); images with fewer than min_pixels pixels of "
        "the classes that it lists are left out.",
    ),
    Setting(
        "data.short_edge",
        (1, 100_000),
        SHORT_EDGE,
        "Images are resized to have it in this range.",
    ),
    Setting(
        "data.scale_range",
        (0.7, 1.3),
        Each(Number(above=0, most=100), 2, 2, rising=True, example="(0.5, 2.0)"),
        "Random resizing.",
    ),
    Setting(
        "data.scale_step",
        0.0,
        Number(0, 100),
        "0.1: resizing by 0.7, 0.8, ... only; 0: by any factor.",
    ),
    Setting("data.flip_probability", 0.5, Number(0, 1), "Left-right."),
    Setting("data.rotation", 0.0, Number(0, 180), "Up to so many degrees either way."),
    Setting(
        "data.crop",
        "random",
        OneOf(("random", "class_centred")),
        "Where crops are taken; class_centred as in the paper's code.",
    ),
    Setting(
        "data.crop_size",
        96,
        Whole(1, 8192),
        "Square; smaller images are padded.",
    ),
    Setting(
        "data.colour_jitter",
        (0.0, 0.0, 0.0, 0.0),
        Parts(
            {
                "brightness": Number(0, 10),
                "contrast": Number(0, 10),
                "saturation": Number(0, 10),
                "hue": Number(0, 0.5),
            }
        ),
        "Random changes of colour, at most these.",
    ),
    Setting(
        "data.blur",
        0.0,
        Number(0, 100),
        "Gaussian, with a sigma of up to so many pixels.",
    ),
    Setting(
        "data.num_workers", 0, Whole(0, 256), "Processes; 0: threads of this process."
    ),
    Setting("data.num_threads", 4, Whole(1, 256), "Of each worker."),
    Setting(
        "data.decoded_cache",
        0.0,
        Number(0, 1e6),
        "GiB of memory in which examples are kept once they are decoded, if all fit; 0: "
        "none are.",
    ),
)

FOLDER = (
    Setting(
        "data.folder.encoding",
        "ids",
        OneOf(("ids", "colours", "labelme", "coco", "panoptic", "label_studio")),
        "Labels are grey or palette files of class ids, or colours, or what these tools "
        "write.",
    ),
    Setting(
        "data.folder.offset",
        0,
        Whole(-65535, 65535),
        "Added to a value to have its class: -1 where 1 is the first.",
    ),
    Setting(
        "data.folder.ignore",
        (255,),
        Each(Whole(0, 65535), 0, 65536, example="(0, 255)"),
        "Values of pixels that do not count.",
    ),
    Setting(
        "data.folder.suffix",
        "",
        Text(),
        'Of a label\'s name: "_mask" for photo.jpg and photo_mask.png.',
    ),
    Setting(
        "data.folder.classes",
        "classes.txt",
        Text(),
        "A name on each line, colours behind if you like.",
    ),
    Setting(
        "data.folder.val_share",
        0.2,
        Number(above=0, most=0.9),
        "Share of the images to evaluate on, where neither lists nor folders say.",
    ),
    Setting(
        "data.folder.split_seed",
        0,
        COUNT,
        "Chooses them, once: they are written into train.txt and val.txt.",
    ),
)
