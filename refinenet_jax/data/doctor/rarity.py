"""Says which loss a data set asks for."""

from collections.abc import Iterable

from refinenet_jax.data.doctor.findings import Finding
from refinenet_jax.data.doctor.survey import Survey
from refinenet_jax.errors import listed

_RARE = 0.02  # of the labelled pixels


def find_rare(survey: Survey) -> Iterable[Finding]:
    """What the shares of the classes in the split of training call for.

    For two classes it is what found the object in docs/rare_classes.md; for more, the
    sum of cross-entropy and Lovász-softmax of Berman et al. 2018.
    """
    shares = {
        name: pixels / max(survey.labelled, 1)
        for name, pixels in zip(
            survey.table.class_names, survey.class_pixels, strict=True
        )
    }
    ascending = sorted(shares.items(), key=lambda item: item[1])
    rare = [f"{name} {share:.2%}" for name, share in ascending if 0 < share < _RARE]
    if not rare:
        return
    if len(shares) == 2:
        setting = "config.loss.cross_entropy=0 and config.loss.lovasz=1"
        consequence = "plain cross-entropy may call everything the other class"
    else:
        setting = "config.loss.lovasz=1"
        consequence = "plain cross-entropy may learn them late"
    yield Finding(
        "note",
        "rare_classes",
        survey.split,
        f"{len(rare)} of {len(shares)} classes have less than {_RARE:.0%} of the "
        f"labelled pixels each ({listed(rare, 10)}): {consequence}; set {setting}",
        (),
    )
