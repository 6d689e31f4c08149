"""Every setting: its name, default, rule and text. Nothing else has defaults.

From this table come `refinenet_jax.config.default`, the check of a configuration, the
help and docs/settings.md, which `python -m refinenet_jax.settings` writes.
"""

from refinenet_jax.settings.data import DATA, FOLDER
from refinenet_jax.settings.network import MODEL, RUN
from refinenet_jax.settings.results import DEMO, EVAL, EXPORT, PLAN, PREDICT
from refinenet_jax.settings.setting import Setting
from refinenet_jax.settings.training import LOSS, OPTIMIZER, TRAIN

__all__ = ["GROUPS", "SETTINGS", "Setting"]

GROUPS = {
    "": "the run as a whole",
    "model": "the network",
    "data": "the data and its augmentation",
    "data.folder": 'your own pictures, data.name = "folder"',
    "optimizer": "optimiser and learning rate",
    "loss": "what is minimised",
    "train": "length and rhythm of training",
    "eval": "how images are evaluated, and predicted too",
    "predict": "what mode predict writes",
    "export": "what mode export writes",
    "plan": "what mode plan looks for",
    "demo": "the page of mode demo",
}

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for part in (
        RUN,
        MODEL,
        DATA,
        FOLDER,
        OPTIMIZER,
        LOSS,
        TRAIN,
        EVAL,
        PREDICT,
        EXPORT,
        PLAN,
        DEMO,
    )
    for setting in part
}
