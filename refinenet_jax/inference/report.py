"""An evaluation as people read it."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def class_table(evaluation: Mapping[str, Any]) -> Table:
    """IoU of each class and the mean; takes what eval.json holds."""
    table = Table(title=f"{evaluation['dataset']} {evaluation['split']}")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, iou in evaluation["per_class_iou"].items():
        table.add_row(name, "absent" if iou is None else f"{100 * iou:.2f}")
    table.add_section()
    for name in ("mean_iou", "pixel_accuracy", "mean_accuracy"):
        table.add_row(name.replace("_", " "), f"{100 * evaluation[name]:.2f}")
    return table
