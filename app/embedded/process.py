"""A server process that cannot outlive its owner: the owner's side of `watchdog`."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from app.embedded import process_table
from app.embedded.errors import EmbeddedError
from app.embedded.watchdog import FAILED, KEEP, REMOVE, Specification

_ROOT = Path(__file__).parents[2]


class WatchedProcess:
    """One server under one watchdog, running from construction to `end`.

    `log` is a file descriptor that takes what the server writes. `lock` is one that the watchdog and the server hold as
    well, so that a lock on it stands while any of them runs. Raises `EmbeddedError` when a preparing command failed or
    nothing ran after `timeout_s` seconds.
    """

    def __init__(self, specification: Specification, *, log: int, lock: int, timeout_s: float) -> None:
        self._stop_timeout_s = specification.stop_timeout_s
        self._watchdog = subprocess.Popen(
            [sys.executable, "-P", "-s", "-S", "-m", "app.embedded.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            pass_fds=(lock,),
            start_new_session=True,
            bufsize=0,
        )
        assert self._watchdog.stdin is not None  # noqa: S101 - both are pipes
        assert self._watchdog.stdout is not None  # noqa: S101
        self._orders, self._answers = self._watchdog.stdin, self._watchdog.stdout
        try:
            self._tell(specification.encode())
            self.pid = _server_pid(self._hear(timeout_s))
        except BaseException:
            self.end(keep=True)
            raise

    @property
    def is_running(self) -> bool:
        """Whether the server runs; until `end` its process id is nobody else's."""
        return process_table.is_running(self.pid)

    def end(self, *, keep: bool) -> None:
        """End the server, if it runs, and the watchdog; with `keep` the server's directory stays. Harmless twice."""
        if self._watchdog.returncode is not None:
            return
        if not self._orders.closed:
            self._tell(KEEP if keep else REMOVE)
            self._orders.close()
        try:
            while self._hear(self._stop_timeout_s + 5):
                continue
        except EmbeddedError:
            with suppress(ProcessLookupError):
                os.killpg(self._watchdog.pid, signal.SIGKILL)
        self._watchdog.wait()
        self._answers.close()

    def _tell(self, words: bytes) -> None:
        with suppress(BrokenPipeError):  # a watchdog that is gone has taken the server with it
            self._orders.write(words)

    def _hear(self, timeout_s: float) -> str:
        """The watchdog's next line, or what it wrote before it ended."""
        deadline = time.monotonic() + timeout_s
        heard = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while not heard.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise EmbeddedError(f"the server's watchdog did not answer within {timeout_s:g} s")
                chunk = os.read(self._answers.fileno(), 64)
                if not chunk:
                    break
                heard += chunk
        return heard.decode().strip()


def _server_pid(answer: str) -> int:
    if not answer:
        raise EmbeddedError("the server's watchdog ended")
    if answer == FAILED:
        raise EmbeddedError("the server could not be prepared")
    return int(answer)
