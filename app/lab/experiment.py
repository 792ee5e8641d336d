"""What an experiment is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.lab.result import Result


class Progress(Protocol):
    """Told by an experiment what it does; must not block."""

    def __call__(self, share: float, doing: str) -> None:
        """So much of the experiment is done, from 0 to 1, and this is what it does next."""


def silent(share: float, doing: str) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, slots=True)
class Options:
    """`quick` asks for less of it, in a few seconds; `seed` is that of all draws."""

    quick: bool = False
    seed: int = 1
    progress: Progress = silent


@dataclass(frozen=True, slots=True)
class Experiment:
    """`question` is what it answers, in a sentence; `run` answers it.

    `run` may raise `LabError`, `EmbeddedError` and `LoadtestError`. It ends what it has started, `KeyboardInterrupt`
    included.
    """

    name: str
    question: str
    run: Callable[[Options], Result]
