"""Writes docs/results.md from the receipts and published.json: python results/page.py."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "results.md"

_HEAD = """\
# Results

What was trained with this package, and what was published of the same networks. A number
of ours has a receipt in [results](../results): `result.json` and `eval.json` as the run left
them, its command, the commit and the machine. This page is made of them.

```bash
python results/keep.py WORKDIR NAME && python results/page.py
```

The first keeps the receipt of a run that is through. The scores on [rare
classes](rare_classes.md), and [CamVid](data.md#camvid) from random weights, are older than
the first receipt: they have a command and a commit, no more.
"""

_PUBLISHED = """
## Published, and ours

Mean IoU in percent, as the source says. The tables of Lin et al. 2017 themselves were not
read: what stands here is quoted by others, who are named.

| of | on | network | mean IoU | pixel, mean accuracy | source | `--config` | ours |
|---|---|---|---|---|---|---|---|
"""


def page(
    receipts: dict[str, dict[str, Any]], published: Sequence[dict[str, Any]]
) -> str:
    """Markdown.

    Args:
        receipts: by name, what `read` gives.
        published: rows of published.json.
    """
    parts = [_HEAD, "\n## Ours\n"]
    parts += [_run(name, files) for name, files in receipts.items()]
    parts += [_PUBLISHED, *(_row(row, receipts) for row in published)]
    return "".join(parts)


def read(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """The receipts: their files without ".json", by name."""
    return {
        path.parent.name: {
            name: json.loads((path.parent / f"{name}.json").read_text())
            for name in ("receipt", "result", "eval")
        }
        for path in sorted(folder.glob("*/receipt.json"))
    }


def read_published() -> list[dict[str, Any]]:
    """Numbers of others, each with its source."""
    rows: list[dict[str, Any]] = json.loads((FOLDER / "published.json").read_text())
    return rows


def _run(name: str, files: dict[str, Any]) -> str:
    receipt, result, scores = files["receipt"], files["result"], files["eval"]
    packages = result["provenance"]["packages"]
    interval = (scores["intervals"] or {}).get("mean_iou")
    within = (
        f", 95% interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    )
    classes = {k: v for k, v in scores["per_class_iou"].items() if v is not None}
    steps = receipt["mean_iou_by_step"].items()
    return (
        f"\n### {name}\n\n"
        f"Mean IoU **{scores['mean_iou']:.3f}**{within}, pixel accuracy "
        f"{scores['pixel_accuracy']:.3f}, on the {scores['num_images']} images of "
        f"{scores['dataset']} {scores['split']} after step {scores['step']}; "
        f"{result['parameters']:,} parameters, jax {packages['jax']}. "
        f"([receipt](../results/{name}/receipt.json), "
        f"[result](../results/{name}/result.json), "
        f"[evaluation](../results/{name}/eval.json))\n\n"
        f"```bash\n{receipt['command']}  "
        f"# run on {receipt['machine']}, commit {receipt['commit'][:12]}\n```\n\n"
        + _table("step", [s for s, _ in steps], "mean IoU", [v for _, v in steps])
        + "\n"
        + _table("class", list(classes), "IoU", list(classes.values()))
    )


def _table(
    first: str, names: Sequence[str], second: str, values: Sequence[float]
) -> str:
    """Two rows: a number below each name."""
    return (
        f"| {first} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}\n"
        f"| {second} | {' | '.join(f'{value:.3f}' for value in values)} |\n"
    )


def _row(row: dict[str, Any], receipts: dict[str, dict[str, Any]]) -> str:
    found = receipts.get(row.get("receipt", ""))
    cells = [
        row["paper"],
        row["data"],
        row["network"] or "not said",
        f"{row['mean_iou']:.1f}",
        ", ".join(
            f"{row[name]:.1f}"
            for name in ("pixel_accuracy", "mean_accuracy")
            if name in row
        ),
        "; ".join(filter(None, [row["source"], row.get("note")])),
        f"`{row['config']}`" if row["config"] else "",
        f"{100 * found['eval']['mean_iou']:.1f}" if found else "not yet run",
    ]
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(read(), read_published()))
