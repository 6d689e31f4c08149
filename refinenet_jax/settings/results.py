"""The settings of evaluation, prediction, export and planning."""

from refinenet_jax.settings.data import SHORT_EDGE
from refinenet_jax.settings.rules import Each, Flag, Number, OneOf, Text, Whole
from refinenet_jax.settings.setting import Setting

EVAL = (
    Setting("eval.batch_size", 4, Whole(1, 65536), "Images at once, per process."),
    Setting(
        "eval.buckets",
        (),
        Each(Each(Whole(1, 65536), 2, 2), 0, 64, example="((512, 512),)"),
        "Images are padded to the smallest of these (height, width) that holds them, "
        "and beyond to eval.size_multiple: a program is compiled for each size that "
        "occurs.",
    ),
    Setting(
        "eval.size_multiple",
        128,
        Whole(1, 8192),
        "Images that no bucket holds are padded to a multiple of this.",
    ),
    Setting(
        "eval.row_shards",
        1,
        Whole(1, 1024),
        "Devices that share each image, a band of rows each, in mode eval and while "
        "training.",
    ),
    Setting(
        "eval.short_edge",
        (1, 100_000),
        SHORT_EDGE,
        "Images are resized to have it in this range; (450, 800) in the authors' "
        "protocol.",
    ),
    Setting(
        "eval.scales",
        (1.0,),
        Each(Number(above=0, most=16), 1, 64, example="(0.5, 1.0)"),
        "Images are seen at each of these sizes; (0.4, 0.6, 0.8, 1.0, 1.2) in the "
        "authors' protocol, (0.5, 0.75, 1.0, 1.25, 1.5, 1.75) in the usual one.",
    ),
    Setting(
        "eval.flip",
        False,
        Flag(),
        "Images are seen mirrored as well, as in the usual protocol.",
    ),
    Setting(
        "eval.fusion",
        "softmax",
        OneOf(("softmax", "log_softmax")),
        "The mean of what they give; log_softmax in the authors' protocol.",
    ),
    Setting(
        "eval.window",
        0,
        Whole(0, 65536),
        "Edge of the windows for images beyond memory; 0: none, and 1024 for those "
        "beyond predict.max_megapixels.",
    ),
    Setting(
        "eval.overlap",
        1 / 3,
        Number(0, 0.9),
        "Share of a window that the next one covers too.",
    ),
    Setting(
        "eval.bootstrap_samples",
        1000,
        Whole(0, 100_000),
        "Resampled data sets behind the 95% intervals; 0: none.",
    ),
    Setting(
        "eval.boundary_width",
        0.02,
        Number(0, 1),
        "Of the boundary IoU of mode eval, as a share of an image's diagonal; 0: off.",
    ),
    Setting(
        "eval.checkpoint",
        "best",
        OneOf(("best", "latest")),
        "Best by mean IoU, or latest; of modes eval, predict and export.",
    ),
)

PREDICT = (
    Setting(
        "predict.overwrite",
        False,
        Flag(),
        "What is in predictions/ is predicted again.",
    ),
    Setting(
        "predict.probabilities",
        False,
        Flag(),
        "NAME.npz of each image as well, for all classes.",
    ),
    Setting(
        "predict.max_megapixels",
        50.0,
        Number(above=0, most=1_000_000),
        "Larger images, and such as memory does not hold, are predicted in windows of "
        "eval.window into NAME.tif.",
    ),
    Setting(
        "predict.palette",
        "own",
        OneOf(("own", "distinct")),
        "Colours of overlays: the data set's own, or such as the colour-blind tell apart "
        "as well, with lines where classes meet.",
    ),
    Setting(
        "predict.submission",
        "",
        OneOf(("voc2012", "cityscapes", "ade20k"), optional=True),
        "Also an archive for this server.",
    ),
    Setting(
        "predict.competition",
        "comp6",
        OneOf(("comp5", "comp6")),
        "Of VOC; comp5: trained on nothing but its data.",
    ),
    Setting(
        "predict.ids",
        "",
        Text(),
        "File with an id on each line: what the archive must hold.",
    ),
)

EXPORT = (
    Setting(
        "export.formats",
        ("safetensors", "stablehlo"),
        Each(OneOf(("safetensors", "stablehlo", "onnx")), 1, 3),
        "Files of mode export: network.safetensors, the weights with the names of the "
        "PyTorch ports; network.stablehlo and network.onnx, whole programs.",
    ),
    Setting(
        "export.size",
        (512, 512),
        Each(Whole(1, 16384), 2, 2, example="(512, 512)"),
        "Height and width that these programs take.",
    ),
)

PLAN = (
    Setting(
        "plan.search",
        False,
        Flag(),
        "The largest batch of a device is looked for, with each model.remat, and parts "
        "for train.batch_size where it does not fit; several compilations each.",
    ),
)

DEMO = (
    Setting(
        "demo.host",
        "127.0.0.1",
        Text(),
        "Interface that mode demo listens at; 127.0.0.1: this machine alone; 0.0.0.0: "
        "whoever reaches it, and it asks nobody for a password.",
    ),
    Setting("demo.port", 7860, Whole(0, 65535), "Port; 0: one that is free."),
    Setting(
        "demo.max_megabytes",
        30.0,
        Number(above=0, most=10_000),
        "Larger files are refused.",
    ),
    Setting(
        "demo.max_megapixels",
        12.0,
        Number(above=0, most=1000),
        "Larger pictures are refused; each class of 12 megapixels takes 48 MB.",
    ),
)
