"""What a run tells on the terminal: lines and progress."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import jax
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console(highlight=False, soft_wrap=True)


def say(message: RenderableType) -> None:
    """One line, or a table, from the first process only."""
    if jax.process_index() == 0:
        console.print(message, markup=False)


@contextlib.contextmanager
def progress(
    task: str,
    total: int | None,
    done: int = 0,
    left: Callable[[], float | None] | None = None,
) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on a terminal; call what it gives once for each unit.

    left: seconds, where they are estimated elsewhere; None while nothing is known.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        _Left(left) if left is not None else TimeRemainingColumn(),
    )
    with _bar(*columns) as bar:
        identity = bar.add_task(task, total=total, completed=done)
        yield lambda: bar.advance(identity)


@contextlib.contextmanager
def elapsed(task: str, remark: str = "") -> Iterator[bool]:
    """A line that counts the time, on a terminal; gives whether there is one."""
    columns = (
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn(remark),
    )
    with _bar(*columns) as bar:
        bar.add_task(task, total=None)
        yield not bar.disable


def _bar(*columns: ProgressColumn) -> Progress:
    shown = console.is_terminal and jax.process_index() == 0
    return Progress(*columns, console=console, disable=not shown, transient=True)


class _Left(ProgressColumn):
    """The time left as something else estimates it."""

    def __init__(self, left: Callable[[], float | None]):
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        seconds = self._left()
        return Text("-:--" if seconds is None else duration(seconds))


@contextlib.contextmanager
def waiting(task: str, seconds: float) -> Iterator[None]:
    """Says what is compiled and about how long it takes; on a terminal, a bar besides."""
    say(f"compiling {task}: about {duration(seconds)} min on a free core")
    done = threading.Event()
    with progress("seconds", max(1, round(seconds))) as tick:

        def count() -> None:
            while not done.wait(1):
                tick()

        counter = threading.Thread(target=count, daemon=True)
        counter.start()
        start = time.monotonic()
        try:
            yield
        finally:
            done.set()
            counter.join()
    say(f"compiled in {duration(time.monotonic() - start)} min")


def duration(seconds: float) -> str:
    """75.2 → "1:15", 3675.2 → "1:01:15"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
