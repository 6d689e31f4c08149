"""The settings of optimiser, loss and training."""

from refinenet_jax.settings.rules import Each, Flag, Number, OneOf, Whole
from refinenet_jax.settings.setting import Setting

_STEPS = Whole(1, 2**31 - 1)
_STEPS_OR_NONE = Whole(0, 2**31 - 1)

OPTIMIZER = (
    Setting("optimizer.name", "adamw", OneOf(("sgd", "adamw")), "Which one."),
    Setting("optimizer.learning_rate", 2e-3, Number(above=0), "At its highest."),
    Setting(
        "optimizer.encoder_multiplier",
        1.0,
        Number(0),
        "The learning rate of the backbone is so many times that of the rest.",
    ),
    Setting("optimizer.momentum", 0.9, Number(0, 1), "Of sgd."),
    Setting(
        "optimizer.weight_decay",
        1e-4,
        Number(0),
        "On every parameter, as the paper has it.",
    ),
    Setting("optimizer.clip_norm", 1.0, Number(0), "Of the whole gradient; 0: off."),
    Setting(
        "optimizer.schedule",
        "cosine",
        OneOf(("constant", "step", "poly", "cosine")),
        "Of the learning rate, once it has warmed up.",
    ),
    Setting(
        "optimizer.warmup_steps",
        20,
        _STEPS_OR_NONE,
        "Linear, before the schedule begins.",
    ),
    Setting(
        "optimizer.step_at",
        (0.5, 0.8),
        Each(Number(above=0, most=1), 0, 100, rising=True, example="(0.6, 0.85)"),
        "Shares of num_steps where schedule step decays.",
    ),
    Setting(
        "optimizer.step_factor",
        0.1,
        Number(0, 1),
        "Schedule step multiplies the rate by this.",
    ),
    Setting(
        "optimizer.poly_power", 0.9, Number(above=0, most=100), "Of schedule poly."
    ),
)

_TERM = Number(0, 1e6)

LOSS = (
    Setting(
        "loss.resolution",
        "label",
        OneOf(("label", "prediction")),
        "Logits are compared at the size of the label, or the label at theirs.",
    ),
    Setting(
        "loss.cross_entropy",
        1.0,
        _TERM,
        "Weight of the mean cross-entropy in the sum that is minimised.",
    ),
    Setting("loss.focal", 0.0, _TERM, "Weight of the focal loss."),
    Setting(
        "loss.ohem", 0.0, _TERM, "Weight of the cross-entropy of the hard pixels alone."
    ),
    Setting("loss.dice", 0.0, _TERM, "Weight of 1 − Dice of the soft predictions."),
    Setting("loss.lovasz", 0.0, _TERM, "Weight of the Lovász-softmax loss."),
    Setting(
        "loss.balance",
        "none",
        OneOf(("none", "inverse", "median_frequency")),
        "How the rare classes of data.train_split weigh more in cross_entropy, focal and "
        "ohem.",
    ),
    Setting(
        "loss.class_weights",
        (),
        Each(Number(0, 1e6), 2, 255, empty=True, example="(0.5, 3.0)"),
        "Given weights in the place of those of loss.balance, in the order of the "
        "classes.",
    ),
    Setting(
        "loss.label_smoothing",
        0.0,
        Number(0, 0.999),
        "Share of the target that all classes have alike, in cross_entropy and ohem.",
    ),
    Setting(
        "loss.focal_gamma",
        2.0,
        Number(0, 10),
        "The higher, the less the focal loss minds pixels that are nearly right.",
    ),
    Setting(
        "loss.ohem_threshold",
        0.7,
        Number(above=0, most=1),
        "Pixels whose true class has a smaller probability are hard to ohem.",
    ),
    Setting(
        "loss.ohem_least",
        1 / 16,
        Number(above=0, most=1),
        "Share of the pixels that are hard to ohem whatever their probability.",
    ),
)

TRAIN = (
    Setting("train.num_steps", 240, _STEPS, "Training ends after this step."),
    Setting(
        "train.batch_size",
        8,
        Whole(1, 65536),
        "Images a step, over all devices of all processes.",
    ),
    Setting(
        "train.accumulate",
        1,
        Whole(1, 65536),
        "Parts that a batch is taken in, one after the other, for one step: memory of "
        "a part, gradient of the batch.",
    ),
    Setting(
        "train.shard_state",
        False,
        Flag(),
        "Each device keeps a share of the parameters and of what the optimiser knows "
        "of them, rather than all.",
    ),
    Setting(
        "train.row_shards",
        1,
        Whole(1, 1024),
        "Devices that share each picture, a band of rows each.",
    ),
    Setting(
        "train.ema",
        0.0,
        Number(0, 0.999999),
        "Decay of an average of the network over the steps, such as 0.999, which is "
        "then what is evaluated, saved and exported; 0: none.",
    ),
    Setting("train.log_every", 20, _STEPS, "Steps between lines of train.jsonl."),
    Setting(
        "train.eval_every",
        80,
        _STEPS_OR_NONE,
        "Steps between evaluations; 0: at the end only.",
    ),
    Setting(
        "train.checkpoint_every",
        80,
        _STEPS_OR_NONE,
        "Steps between checkpoints; 0: at the end and when an evaluation is the best.",
    ),
    Setting(
        "train.keep_checkpoints",
        2,
        Whole(1, 1_000_000),
        "The latest; the best is kept besides.",
    ),
    Setting(
        "train.profile",
        (),
        Each(_STEPS, 2, 2, empty=True, rising=True, example="(10, 12)"),
        "First and last of the steps that are traced into WORKDIR/profile.",
    ),
    Setting(
        "train.hang_timeout",
        600,
        Whole(0, 604_800),
        "Seconds without a step or an evaluated image after which each process prints "
        "where its threads wait; 0: never.",
    ),
)
