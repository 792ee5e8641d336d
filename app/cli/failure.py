"""How a command ends that can't do what it was asked to."""

from __future__ import annotations


class CommandError(Exception):
    """One clear line for the person at the terminal, and the exit status: 2 for wrong input, 1 for the rest."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status
