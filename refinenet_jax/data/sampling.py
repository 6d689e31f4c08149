"""The order of examples that shows every class about equally often."""

import sys

import numpy as np
import numpy.typing as npt

from refinenet_jax.errors import UserError

Numbers = npt.NDArray[np.int64]


def class_balanced_epoch(
    present: npt.NDArray[np.bool_], images_per_class: int, rng: np.random.Generator
) -> Numbers:
    """Draws the images of one epoch: for each class the same number, if it has them.

    An image of several classes may be drawn once for each of them; one that holds no
    class is never drawn. Lin et al. 2017, released training code, model type 1: 100
    images a class.

    Args:
      present: bool [N,C], which of the C classes each of the N images holds.
      images_per_class: how many images of each class to draw, without replacement; all
        of them where a class has fewer.
      rng: the generator to draw from.

    Returns:
      int64 [length], numbers of images in random order. The length is the sum over
      classes of min(images_per_class, images of the class), for any rng.
    """
    return _epoch(_images_of_classes(present), images_per_class, rng)


class ClassBalancedOrder:
    """Endless epochs of `class_balanced_epoch`, one behind the other, by position.

    What stands at a position depends on the arguments alone, not on what was asked
    before: `order[position]` is the same in any process and thread. Can be pickled.
    """

    def __init__(
        self, present: npt.NDArray[np.bool_], images_per_class: int, seed: int
    ) -> None:
        """See `class_balanced_epoch`.

        Args:
          present: bool [N,C].
          images_per_class: at least 1.
          seed: of all epochs, 0 <= seed < 2**32.

        Raises:
          UserError: no image holds any class.
        """
        # An image holds few of the classes: their numbers are less than the table.
        self._images_of_classes = _images_of_classes(present)
        self._images_per_class = images_per_class
        self._seed = seed
        self._epoch_length = sum(
            min(images_per_class, len(images)) for images in self._images_of_classes
        )
        if self._epoch_length == 0:
            raise UserError(
                "class-balanced sampling needs labels, and no image of the training "
                "split has a labelled pixel: choose another split, or switch it off"
            )
        # Threads ask for neighbouring positions: around the end of an epoch for two.
        self._recent: tuple[tuple[int, Numbers], ...] = ()

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, position: int) -> int:
        """The number of the image at that position, from 0 on."""
        epoch, place = divmod(position, self._epoch_length)
        return int(self._images_of_epoch(epoch)[place])

    def _images_of_epoch(self, epoch: int) -> Numbers:
        for number, images in self._recent:
            if number == epoch:
                return images
        rng = np.random.default_rng((self._seed, epoch))
        images = _epoch(self._images_of_classes, self._images_per_class, rng)
        # Two threads may draw the same epoch at once; either result is the same.
        self._recent = (*self._recent[-1:], (epoch, images))
        return images


def _images_of_classes(present: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int32]]:
    return [np.flatnonzero(column).astype(np.int32) for column in present.T]


def _epoch(
    images_of_classes: list[npt.NDArray[np.int32]],
    images_per_class: int,
    rng: np.random.Generator,
) -> Numbers:
    drawn = [
        rng.choice(images, min(images_per_class, len(images)), replace=False)
        for images in images_of_classes
        if len(images) > 0
    ]
    if not drawn:
        return np.zeros(0, np.int64)
    return rng.permutation(np.concatenate(drawn)).astype(np.int64)
