"""Scores from integer counts of pixels over a whole data set."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from refinenet_jax.errors import UserError
from refinenet_jax.evaluation.counting import Counts

Scores = npt.NDArray[np.float64]

COUNTING = (
    "one confusion matrix over all images at their own size, row = true class, column = "
    "predicted class; pixels labelled 255 are left out; IoU = TP / (TP + FP + FN)"
)

_BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class Convention:
    """Which classes a mean IoU is over; evaluators differ in it.

    Attributes:
        name: what eval.json calls it.
        text: what it says, and who has it.
        absent: IoU of a class in neither truth nor prediction; NaN: it is left out.
        needs_truth: whether a class without true pixels is left out even where it is
            predicted.
        first_class: the first that counts; 1 where background is left out.
    """

    name: str
    text: str
    absent: float
    needs_truth: bool
    first_class: int

    def mean_iou(self, counts: npt.NDArray[Any]) -> Scores:
        """[...,C,3], see `counting.class_counts` → float64 [...]; NaN where no class counts."""
        values = iou(counts)[..., self.first_class :]
        values = np.where(np.isnan(values), self.absent, values)
        counted = ~np.isnan(values)
        if self.needs_truth:
            counted &= counts[..., self.first_class :, 2] > 0
        total = np.where(counted, values, 0).sum(axis=-1)
        return _ratio(total, counted.sum(axis=-1))


# Each as the code that its text names has it.
_CONVENTIONS = (
    Convention(
        "absent_left_out",
        "classes in neither truth nor prediction are left out of the mean (as in "
        "cityscapesScripts, mmsegmentation and the score.py of FCN)",
        absent=np.nan,
        needs_truth=False,
        first_class=0,
    ),
    Convention(
        "absent_counts_0",
        "classes in neither truth nor prediction count as IoU 0 (as in the evaluation "
        "code of ADE20K, CSAILVision/sceneparsing)",
        absent=0.0,
        needs_truth=False,
        first_class=0,
    ),
    Convention(
        "absent_counts_1",
        "classes in neither truth nor prediction count as IoU 1 (as in "
        "DrSleep/light-weight-refinenet); higher wherever a class is absent",
        absent=1.0,
        needs_truth=False,
        first_class=0,
    ),
    Convention(
        "without_truth_left_out",
        "classes without true pixels are left out of the mean, even where they are "
        "predicted (as in the MATLAB code of Lin et al. 2017)",
        absent=np.nan,
        needs_truth=True,
        first_class=0,
    ),
)
# Where the authors' own evaluation does not leave absent classes out. On a whole split,
# which holds every class, all conventions with the same classes agree.
_OF_DATASET = {"ade20k": "absent_counts_0"}


def conventions(class_names: Sequence[str]) -> list[Convention]:
    """All conventions; each once more without class 0 where that is background.

    Example:
        counts = class_counts(np.array([[5, 1], [0, 4]]))
        for convention in conventions(["background", "cat"]):
            print(convention.name, convention.mean_iou(counts))
    """
    found = list(_CONVENTIONS)
    if class_names[0].lower() == _BACKGROUND:
        found += [
            dataclasses.replace(
                convention,
                name=f"{convention.name}_without_background",
                text=f"as {convention.name}, but background is left out as well",
                first_class=1,
            )
            for convention in _CONVENTIONS
        ]
    return found


def own_convention(dataset: str) -> Convention:
    """That of a data set's authors, by its name; absent classes left out if unknown.

    Example:
        assert own_convention("ade20k").name == "absent_counts_0"
    """
    name = _OF_DATASET.get(dataset, "absent_left_out")
    return next(each for each in _CONVENTIONS if each.name == name)


def iou(counts: npt.NDArray[Any]) -> Scores:
    """[...,C,3], see `counting.class_counts` → float64 [...,C]; NaN for an absent class.

    Example:
        np.testing.assert_allclose(iou(np.array([[5, 5, 6], [4, 5, 4]])), [5 / 6, 4 / 5])
    """
    both = counts[..., 0]
    return _ratio(both, counts[..., 1] + counts[..., 2] - both)


def pixel_accuracy(counts: npt.NDArray[Any]) -> Scores:
    """[...,C,3], see `counting.class_counts` → float64 [...]; NaN where no pixel is labelled."""
    return _ratio(counts[..., 0].sum(axis=-1), counts[..., 2].sum(axis=-1))


def scores(counts: Counts, convention: Convention) -> dict[str, float]:
    """The four scores of Long et al. 2015, section 5, as shares in 0..1.

    counts: int64 [C,3], see `counting.class_counts`. A class without true pixels has no
    accuracy and is left out of mean_accuracy.

    Example:
        prediction = jnp.zeros_like(labels)  # integer [B,H,W], as the labels
        matrices = confusion_matrices(prediction, labels, 3)
        counts = class_counts(np.asarray(matrices).sum(axis=0))
        print(scores(counts, own_convention("voc2012"))["mean_iou"])

    Raises:
        UserError: the counts are zero; there is nothing to score.
    """
    correct, truth = counts[:, 0], counts[:, 2]
    if not truth.sum():
        raise UserError(
            "config.data.eval_split holds no labelled pixel: choose another split"
        )
    return {
        "mean_iou": float(convention.mean_iou(counts)),
        "pixel_accuracy": float(pixel_accuracy(counts)),
        "mean_accuracy": float(np.nanmean(_ratio(correct, truth))),
        "frequency_weighted_iou": float(np.nansum(iou(counts) * truth) / truth.sum()),
    }


def image_scores(counts: Counts) -> Scores:
    """Mean IoU of each image over the classes it holds.

    int64 [N,C,3], see `counting.class_counts` → float64 [N]; NaN where no pixel is labelled.
    """
    [over_its_own] = [each for each in _CONVENTIONS if each.needs_truth]
    return over_its_own.mean_iou(counts)


def by_convention(
    counts: Counts, own: Convention, class_names: Sequence[str]
) -> dict[str, Any]:
    """The mean IoU as others count it, and how, for eval.json; counts: int64 [C,3]."""
    found = conventions(class_names)
    means = known([each.mean_iou(counts) for each in found])
    return {
        "convention": own.name,
        "mean_iou_by_convention": {
            each.name: mean for each, mean in zip(found, means, strict=True)
        },
        "conventions": {each.name: each.text for each in found},
        "counting": COUNTING,
    }


def by_class(values: Scores, class_names: Sequence[str]) -> dict[str, float | None]:
    """float64 [C] → {name: value}, None for NaN."""
    return dict(zip(class_names, known(values), strict=True))


def known(values: Iterable[Any]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def _ratio(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Scores:
    """NaN where the whole is 0."""
    part, whole = np.asarray(part), np.asarray(whole)
    nothing = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=nothing, where=whole > 0)
