"""How far a run has come, for the person who waits."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_EVERY_S = 2.0


class RunProgress(Protocol):
    """Told by the runner what goes on; none of it may block."""

    def begin(self, what: str, total: float) -> None:
        """A part of the run begins, `total` units long."""
        ...

    def advance(self, units: float) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, what: str, total: float) -> None:
        pass

    def advance(self, units: float) -> None:
        pass


class ConsoleProgress:
    """A bar for each part of the run; a line now and then where the console is no terminal. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=4,
            disable=not console.is_terminal,
        )
        self._task = self._bars.add_task("", visible=False)
        self._what = ""
        self._total = 0.0
        self._done = 0.0
        self._said_at = 0.0

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, what: str, total: float) -> None:
        self._what, self._total, self._done, self._said_at = what, total, 0.0, time.monotonic()
        self._task = self._bars.add_task(what, total=total)
        if not self._console.is_terminal:
            self._console.print(what, highlight=False, markup=False)

    def advance(self, units: float) -> None:
        self._done += units
        self._bars.update(self._task, completed=min(self._done, self._total))
        now = time.monotonic()
        if not self._console.is_terminal and now - self._said_at >= PLAIN_EVERY_S:
            self._said_at = now
            share = self._done / self._total if self._total else 1.0
            self._console.print(f"{self._what}: {min(share, 1):.0%}", highlight=False, markup=False)
