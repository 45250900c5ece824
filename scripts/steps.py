"""Long work as a person watches it: step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn


class Steps:
    """Steps on a terminal, one line each."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def step(self, description: str, total: int | None = None) -> None:
        """A new step begins; the one before is done."""
        self._finish()
        self._task = self._progress.add_task(description, total=total)

    def advance(self, count: int) -> None:
        """So much more of the step is done."""
        if self._task is not None:
            self._progress.advance(self._task, count)

    def _finish(self) -> None:
        if self._task is not None:
            # Early stopping ends a step before its total.
            done = self._progress.tasks[self._task].completed or 1
            self._progress.update(self._task, total=done, completed=done)


@contextmanager
def steps(console: Console) -> Iterator[Steps]:
    """Shows steps where a person watches, nothing where none does."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Steps(progress)
