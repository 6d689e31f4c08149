"""Finds pictures that occur twice, in one split or in two."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from refinenet_jax.data.doctor.findings import NUM_FILES, Finding, counted
from refinenet_jax.data.doctor.survey import Survey


def find_copies(surveys: Sequence[Survey], *, own: bool) -> Iterable[Finding]:
    """What there is to say about pictures that occur more than once.

    Args:
      surveys: of the splits.
      own: whether a person made the splits, who can make others.
    """
    places: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for survey in surveys:
        for look in survey.looks:
            places[look.digest].append((survey.split, look.file))
    within: dict[str, list[str]] = defaultdict(list)
    across: list[str] = []
    for found in places.values():
        splits = Counter(split for split, _ in found)
        if len(splits) > 1:
            across.append(" = ".join(dict.fromkeys(file for _, file in found)))
        for split, count in splits.items():
            if count > 1:
                same = [file for where, file in found if where == split]
                within[split].append(" = ".join(same[:3]))
    if across:
        yield Finding(
            # What others published is as it is, and is compared as it is.
            "error" if own else "warning",
            "duplicate_across_splits",
            ", ".join(survey.split for survey in surveys),
            f"{counted(len(across), 'picture')} in both splits: an evaluation on what "
            "was trained on says nothing; let each be in one of them only "
            "(config.data.train_split, config.data.eval_split)",
            tuple(across[:NUM_FILES]),
        )
    for split, same in within.items():
        yield Finding(
            "warning",
            "duplicate",
            split,
            f"{counted(len(same), 'picture')} more than once in the split, and so count "
            "more than others: remove the copies",
            tuple(same[:NUM_FILES]),
        )
