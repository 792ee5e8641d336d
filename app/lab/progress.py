"""How far an experiment has come, for the person who waits."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S = 2.0


class ConsoleProgress:
    """A bar for one experiment; a line now and then where the console is no terminal. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            refresh_per_second=4,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, share: float, doing: str) -> None:
        self._bar.update(self._task, completed=share, description=doing)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said_at >= PLAIN_EVERY_S:
            self._said_at = now
            self._console.print(f"  {share:.0%}  {doing}", highlight=False, markup=False)
