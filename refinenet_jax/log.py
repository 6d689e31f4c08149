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
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(highlight=False, soft_wrap=True)


def say(message: RenderableType) -> None:
    """One line, or a table, from the first process only."""
    if jax.process_index() == 0:
        console.print(message, markup=False)


@contextlib.contextmanager
def progress(
    task: str, total: int | None, done: int = 0
) -> Iterator[Callable[[], None]]:
    """A bar with the time left, on a terminal; call what it gives once for each unit."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and jax.process_index() == 0
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        identity = bar.add_task(task, total=total, completed=done)
        yield lambda: bar.advance(identity)


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
