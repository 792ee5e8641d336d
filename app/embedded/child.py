"""A command of this program in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from app.embedded.errors import EmbeddedError

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
LOG_LINES_TOLD = 5


class ChildEndedError(EmbeddedError):
    """It ended before it served. `has_spoken` tells whether its own line says why, where its log goes to."""

    def __init__(self, name: str, status: int, last_words: str) -> None:
        how = f"signal {-status} ended it" if status < 0 else f"exit status {status}"
        super().__init__(f"{name} did not start ({how}){last_words}")
        self.status = status
        self.has_spoken = status > 0


class Child:
    """`python -m app` with `arguments`, one that says in a line of JSON where it serves; `name` is for people.

    It ends with its parent, however that ends. Its log goes to `log`, or where this process' standard error goes. Of
    the app's settings it has those in `settings` only: none are inherited.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], settings: Mapping[str, str], *, log: Path | None = None
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it serves. Raises `EmbeddedError` with what it said where it does not."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        log: IO[bytes] | None = None
        try:
            if self._log is not None:
                log = self._log.open("ab")
            self._process = subprocess.Popen(  # noqa: S603 - this program, with flags of this program's making
                [sys.executable, "-m", "app", *self._arguments, "--json", "--while-stdin-open"],
                cwd=Path(__file__).resolve().parents[2],
                env={**inherited, **self._settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which stops it in good order
            )
        finally:
            if log is not None:
                log.close()
        try:
            self._serves(self._first_line())
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The process id; `EmbeddedError` where it was not started."""
        return self._require().pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int | None:
        """SIGTERM, and wait until it has drained, then SIGKILL; the exit status, `None` where it never ran."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close_pipes()
        return self._process.returncode

    def kill(self) -> None:
        """SIGKILL: no draining, no goodbye. Harmless where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_pipes()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _serves(self, said: Mapping[str, str]) -> None:
        """Take from its line what others are to know."""
        raise NotImplementedError

    def _require(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EmbeddedError(f"{self.name} was not started")
        return self._process

    def _close_pipes(self) -> None:
        process = self._require()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _first_line(self) -> dict[str, str]:
        process = self._require()
        stdout = process.stdout
        assert stdout is not None  # noqa: S101 - asked for with PIPE
        lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=START_TIMEOUT_S)
        except queue.Empty:
            raise EmbeddedError(
                f"{self.name} did not start within {START_TIMEOUT_S:.0f} s{self._last_words()}"
            ) from None
        if not line:
            raise ChildEndedError(self.name, process.wait(STOP_TIMEOUT_S), self._last_words())
        address: dict[str, str] = json.loads(line)
        return address

    def _last_words(self) -> str:
        if self._log is None:
            return ""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_TOLD:]
        return "; it said: " + " / ".join(lines) if lines else ""
