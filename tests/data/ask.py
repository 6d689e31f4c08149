"""Asks for data sets in one line, and keeps what is said meanwhile."""

import contextlib
import dataclasses

from refinenet_jax.data import datasets, preparation
from refinenet_jax.data.request import FolderLabels, Request

FOLDER_LABELS = FolderLabels(
    encoding="ids", offset=0, ignore=(255,), suffix="", classes="classes.txt"
)


class Listener:
    """A reporter that remembers lines and units."""

    def __init__(self):
        self.lines = []
        self.units = {}

    def say(self, message):
        self.lines.append(message)

    @contextlib.contextmanager
    def progress(self, task, total):
        self.units[task] = [0, total]

        def on_unit():
            self.units[task][0] += 1

        yield on_unit


def request(
    name, *, data_dir="", manual_dir="", damaged="stop", cache_dir="", **labels
):
    """labels: fields of FolderLabels that differ from the config's defaults."""
    return Request(
        name=name,
        data_dir=str(data_dir),
        manual_dir=str(manual_dir),
        damaged=damaged,
        folder=dataclasses.replace(FOLDER_LABELS, **labels),
        cache_dir=str(cache_dir),
    )


def lookup(name, **where):
    return datasets.lookup(request(name, **where))


def prepare(name, *, listener=None, **where):
    return preparation.prepare(request(name, **where), listener or Listener())


def open_split(name, split, *, listener=None, **where):
    return datasets.open_split(prepare(name, listener=listener, **where), split)
