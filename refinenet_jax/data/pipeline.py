"""From encoded examples to batches of training, and to examples of evaluation.

The steps run in grain's threads and, with `num_workers` above 0, in processes of their
own. Those processes start by importing this module, so nothing here imports jax.
"""

import dataclasses
import functools
import signal
from collections.abc import Iterator, Sequence

import cv2
import grain
import numpy as np
from absl import flags

from refinenet_jax.data.mixture import Ingredient, decode, mixed_examples
from refinenet_jax.data.source import Source
from refinenet_jax.data.transforms import Example, Transform, View, transformed


def train_batches(
    ingredients: Sequence[Ingredient],
    transforms: Sequence[Transform],
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    num_threads: int = 4,
) -> grain.IterDataset:
    """Endless batches of randomly transformed examples, shuffled anew each epoch.

    With several ingredients, each keeps its share in every stretch of the order and
    has epochs of its own.

    All processes walk one global order of examples; process i takes the i-th equal
    part of each global batch. The share is taken behind shuffle and transforms, whose
    random numbers depend on the place in the global order alone: the batches of one
    step, one behind the other, are the same for any number of processes, workers and
    threads.

    The iterator's `get_state` and `set_state` resume exactly: batches that were read
    ahead but not taken come again. The state is the place of the next example in the
    global order, so it also fits another number of workers, threads or processes and
    another global batch. Close the iterator (`close()`) to end its workers.

    Args:
      ingredients: at least one; what examples are taken from and in which shares.
      transforms: applied in order; the last must leave all examples in one size.
      batch_size: examples of a batch in this process.
      seed: of order and transforms, 0 <= seed < 2**32.
      process_index: which share is this process's, 0 <= process_index < process_count.
      process_count: how many processes share the global batch.
      num_workers: processes that prepare batches; 0 for threads only.
      num_threads: threads in each worker, or in this process; at least 1.

    Returns:
      An iterable of {"image": [B,H,W,C] of the sources' kind, "label": uint8 [B,H,W]},
      C-contiguous, without end.

    Raises:
      UserError: see `mixture.mixed_examples`; from the iterator: an image that cannot
        be decoded.
    """
    _leave_threads_to_grain()
    examples = mixed_examples(ingredients, seed).random_map(_Chain(tuple(transforms)))
    rows = _Rows(examples, 0, batch_size, process_index, process_count)
    return _TrainBatches(rows, num_workers=num_workers, num_threads=num_threads)


class _TrainBatches(grain.IterDataset):
    """Reads batches ahead, from the first example or from any other on."""

    def __init__(self, rows: "_Rows", *, num_workers: int, num_threads: int) -> None:
        super().__init__()
        self._rows = rows
        self._num_workers = num_workers
        self._num_threads = num_threads

    def __iter__(self) -> grain.DatasetIterator:
        return _TrainIterator(self)

    @property
    def global_batch(self) -> int:
        """Examples of a batch in all processes together."""
        return self._rows.batch_size * self._rows.process_count

    def starting_at(self, example: int) -> grain.DatasetIterator:
        """Grain's own iterator over the batches from that example on."""
        rows = dataclasses.replace(self._rows, first=example)
        batches = grain.MapDataset.source(rows).batch(
            rows.batch_size,
            # Without it Grain rounds the endless length up, beyond what fits.
            drop_remainder=True,
            batch_fn=_drawn,
        )
        read_ahead = batches.to_iter_dataset(_read_ahead(self._num_threads))
        if self._num_workers == 0:
            return iter(read_ahead)
        if not flags.FLAGS.is_parsed():
            # Grain's workers read absl flags, which only absl's entry point parses.
            flags.FLAGS.mark_as_parsed()
        options = grain.MultiprocessingOptions(
            num_workers=self._num_workers,
            # The threads' buffer in each worker reads far enough ahead.
            per_worker_buffer_size=1,
        )
        return iter(read_ahead.mp_prefetch(options, worker_init_fn=_start_worker))


class _TrainIterator(grain.DatasetIterator):
    """An iterator whose state is the place of the next example in the global order.

    The state of grain's own iterator has an entry for each worker: with another
    number of workers it fails, or resumes elsewhere without a word. Its
    ElasticIterator deals examples out in turn: with another number of processes a
    batch holds the same examples in another order.
    """

    def __init__(self, batches: _TrainBatches) -> None:
        super().__init__()
        self._batches = batches
        self._next_example = 0
        self._iterator: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, np.ndarray]:
        if self._iterator is None:
            self._iterator = self._batches.starting_at(self._next_example)
        batch = next(self._iterator)
        self._next_example += self._batches.global_batch
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_example": self._next_example}

    def set_state(self, state: dict[str, int]) -> None:
        self._stop()
        self._next_example = state["next_example"]

    def close(self) -> None:
        super().close()
        self._stop()

    def _stop(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None


def eval_examples(
    source: Source, *, process_index: int, process_count: int, num_threads: int
) -> Iterator[Example]:
    """This process's share of a split, in order, each example exactly once.

    Args:
      source: the examples; see `datasets.open_split`.
      process_index: see `train_batches`; the shares differ in size by at most one.
      process_count: see `train_batches`.
      num_threads: threads that read ahead; at least 1.

    Yields:
      {"image": [H,W,C] of the source's kind, "label": uint8 [H,W], "name": str}

    Raises:
      UserError: an image that cannot be decoded.
    """
    _leave_threads_to_grain()
    share = grain.MapDataset.source(source)[process_index::process_count]
    decoded = share.map(functools.partial(decode, kind=source.kind))
    yield from decoded.to_iter_dataset(_read_ahead(num_threads))


@dataclasses.dataclass(frozen=True)
class _Rows:
    """One process's rows of every global batch: `batch_size` neighbours of each.

    The first batch begins with the example `first`.
    """

    examples: grain.MapDataset
    first: int
    batch_size: int
    process_index: int
    process_count: int

    def __len__(self) -> int:
        return (len(self.examples) - self.first) // self.process_count

    def __getitem__(self, index: int) -> View:
        batch, row = divmod(index, self.batch_size)
        share = batch * self.process_count + self.process_index
        return self.examples[self.first + share * self.batch_size + row]


@dataclasses.dataclass(frozen=True)
class _Chain:
    """Transforms one after the other, with one random generator for the example."""

    transforms: tuple[Transform, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> View:
        return transformed(example, self.transforms, rng)


def _drawn(views: Sequence[View]) -> dict[str, np.ndarray]:
    """A batch of examples, each computed in its place."""
    size, kind = views[0].size, views[0].kind
    image = np.empty((len(views), *size, kind.channels), kind.dtype)
    label = np.empty((len(views), *size), np.uint8)
    for view, *place in zip(views, image, label, strict=True):
        if view.size != size:
            raise ValueError(f"transforms leave sizes {size} and {view.size}")
        if view.kind != kind:
            raise ValueError(f"the pictures of a batch have {kind} and {view.kind}")
        view.draw(*place)
    return {"image": image, "label": label}


def _read_ahead(num_threads: int) -> grain.ReadOptions:
    # Grain's own default keeps 500 elements, which here are whole batches.
    return grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=2 * num_threads
    )


def _start_worker(worker_index: int, worker_count: int) -> None:
    del worker_index, worker_count
    # Sent to all processes of a job, these are for the one that saves; Grain ends its
    # workers by SIGKILL.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    _leave_threads_to_grain()


def _leave_threads_to_grain() -> None:
    """Grain's threads already keep the cores busy; OpenCV's would compete with them."""
    cv2.setNumThreads(0)
