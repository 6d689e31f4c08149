from pathlib import Path

import pytest

from refinenet_jax.errors import UserError
from refinenet_jax.modes import train


def test_non_finite_steps_are_named_with_the_remedy():
    train._refuse_non_finite([], Path("runs/x"))
    with pytest.raises(UserError, match="at step 12, 13: lower config.optimizer"):
        train._refuse_non_finite([12, 13], Path("runs/x"))


@pytest.mark.parametrize(
    ("step", "every", "due"), [(4, 2, True), (5, 2, False), (4, 0, False)]
)
def test_what_is_due(step, every, due):
    assert train._is_due(step, every) is due
