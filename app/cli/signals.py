"""Ending a command in good order, whichever way it is told to."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

WATCH_INTERVAL_S = 0.25
"""How often what must go on is looked after."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise `KeyboardInterrupt` too, so that every way of being ended cleans up."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_interrupt(goes_on: Callable[[], bool]) -> None:
    """Wait until `KeyboardInterrupt`, which it does not let out, or until `goes_on` says no."""
    with contextlib.suppress(KeyboardInterrupt):
        never = threading.Event()
        while goes_on():
            never.wait(WATCH_INTERVAL_S)


def terminate_with_stdin() -> None:
    """Have this process get SIGTERM when its standard input closes, as it does when the parent ends."""
    threading.Thread(target=_terminate_with_stdin, name="stdin", daemon=True).start()


def _terminate_with_stdin() -> None:
    # Not through the buffered reader: a thread that is inside it when the interpreter ends aborts the process.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
