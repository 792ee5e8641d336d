"""Answers made up for tests."""

from __future__ import annotations

from app.loadtest.open_loop import Answer


def answer(
    *,
    key: int = 1,
    due: float = 0.0,
    sent: float | None = None,
    seconds: float = 0.001,
    source: str = "l1",
    version: int = 1,
    error: str = "",
) -> Answer:
    """A good one, unless it says otherwise."""
    status = 0 if error else 200
    return Answer(key, 0, due, due if sent is None else sent, due + seconds, status, source, version, error)
