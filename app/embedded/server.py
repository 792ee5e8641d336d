"""The life cycle that all embedded servers share."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from app.embedded import process_table
from app.embedded.account import server_account
from app.embedded.directory import ServerDirectory
from app.embedded.errors import EmbeddedError
from app.embedded.process import WatchedProcess
from app.embedded.watchdog import Specification

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
_PORT_ATTEMPTS = 5
_POLL_S = 0.005
_ADDRESS_IN_USE = "Address already in use"  # strerror(EADDRINUSE) in the C locale, as both servers log it


class _PortTakenError(EmbeddedError):
    """Somebody else has the port."""


class EmbeddedServer(ABC):
    """A server on loopback that lives in a directory of its own and dies with the process that started it.

    `directory` keeps the data past `stop`; without one, a temp directory is made, and removed by `stop`. `port` 0 takes
    any free one, which stays the same until `stop`. `options` are settings of the server, by its own names.

    `start`, `restart`, `kill`, `suspend` and `resume` raise `EmbeddedError`. Calls may come from any thread; one waits
    for another.
    """

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(
        self,
        directory: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        options: Mapping[str, str] | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise EmbeddedError(f"{port} is no port for {self.name}: 0 to 65535")
        self.host = host
        self._wanted_port = port
        self._wanted_directory = directory
        self._options = dict(options or {})
        self._port = port
        self._account = server_account()
        self._directory: ServerDirectory | None = None
        self._process: WatchedProcess | None = None
        self._lock = threading.RLock()

    @property
    def port(self) -> int:
        """The port it listens on, as long as it has one; before, the one asked for."""
        return self._port

    @property
    def is_running(self) -> bool:
        """Whether the server's main process runs; a suspended one does."""
        process = self._process
        return process is not None and process.is_running

    @property
    def pid(self) -> int:
        """The process id of the server's main process. Raises `EmbeddedError` where none runs."""
        process = self._process
        if process is None or not process.is_running:
            raise EmbeddedError(f"{self.name} is not running")
        return process.pid

    def start(self) -> None:
        """Start, and return when it answers; after `kill`, on the same port and data.

        A first start that fails, or is interrupted, leaves nothing behind.
        """
        with self._lock:
            if self.is_running:
                raise EmbeddedError(f"{self.name} is already running")
            self._end_process()
            is_first = self._directory is None
            try:
                self._start()
            except BaseException:
                if is_first:
                    self.stop()
                else:
                    self._end_process()
                raise

    def stop(self) -> None:
        """End the server, and remove its directory if it was made here. Harmless where none runs."""
        with self._lock:
            if self._directory is None:
                return
            if not self.is_running:
                self._clean_after_crash(self._directory)
            try:
                if self._process is not None:
                    self._process.end(keep=not self._directory.is_own)
            finally:
                self._process = None
                directory, self._directory = self._directory, None
                self._port = self._wanted_port
                directory.close()

    def restart(self) -> None:
        """End the server in good order and start it again, on the same port and data."""
        with self._lock:
            self._require_started()
            self._end_process()
            self.start()

    def kill(self) -> None:
        """Kill the server's main process (SIGKILL) and wait until all of its processes are gone; the data stay."""
        with self._lock:
            pid = self.pid
            family = self._halt(pid)
            os.kill(pid, signal.SIGKILL)
            process_table.send(family, signal.SIGCONT)
            process_table.send(process_table.wait_ended(family, STOP_TIMEOUT_S), signal.SIGKILL)
            process_table.wait_ended(family, STOP_TIMEOUT_S)
            self._end_process()

    def suspend(self) -> None:
        """Stop all of its processes (SIGSTOP): it accepts connections, as the kernel does that, and answers nothing."""
        with self._lock:
            family = self._halt(self.pid)
            process_table.send(family, signal.SIGSTOP)
            process_table.wait_stopped(family, STOP_TIMEOUT_S)

    def resume(self) -> None:
        """Let it go on after `suspend`."""
        with self._lock:
            pid = self.pid
            process_table.send([*process_table.descendants(pid), pid], signal.SIGCONT)

    def log(self) -> str:
        """What it has logged since its first start. Raises `EmbeddedError` before that."""
        return self._require_started().log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @abstractmethod
    def _find_programs(self, directory: ServerDirectory) -> None:
        """Called once, before anything else; a copy of the programs, where one is needed, goes into the directory."""

    def _preparation(self, directory: ServerDirectory) -> list[list[str]]:  # noqa: ARG002 - for overriding
        """The commands that must run before the server; none when that was done before."""
        return []

    @abstractmethod
    def _command(self, directory: ServerDirectory, port: int) -> list[str]:
        """The server's command line."""

    @abstractmethod
    def _is_ready(self, directory: ServerDirectory, port: int, pid: int) -> bool:
        """Whether the server with this process id, and no other, answers on the port."""

    def _first_use(self) -> None:
        """Called once the server has first answered on this directory."""
        return

    def _clean_after_crash(self, directory: ServerDirectory) -> None:  # noqa: ARG002 - for overriding
        """Remove what a killed server leaves outside its directory."""
        return

    def _require_started(self) -> ServerDirectory:
        if self._directory is None:
            raise EmbeddedError(f"{self.name} was not started")
        return self._directory

    def _start(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        is_first = self._directory is None
        if self._port:
            self._check_port()
        if self._directory is None:
            self._directory = ServerDirectory(self.name, self._wanted_directory, self._account)
            self._find_programs(self._directory)
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = self._port or free_port(self.host)
            try:
                self._launch(self._directory, port, deadline)
            except _PortTakenError:
                self._end_process()
                if self._port or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                self._port = port
                break
        if is_first:
            self._first_use()

    def _launch(self, directory: ServerDirectory, port: int, deadline: float) -> None:
        log = os.open(directory.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            logged = os.fstat(log).st_size
            specification = Specification(
                prepare=self._preparation(directory),
                command=self._command(directory, port),
                environment={"LC_ALL": "C", "TZ": "UTC", "PATH": os.defpath, "HOME": str(directory.data)},
                directory=str(directory.path) if directory.is_own else None,
                stop_signal=self.stop_signal,
                stop_timeout_s=STOP_TIMEOUT_S,
                uid=None if self._account is None else self._account.uid,
                gid=None if self._account is None else self._account.gid,
            )
            timeout_s = max(0.0, deadline - time.monotonic())
            self._process = WatchedProcess(specification, log=log, lock=directory.lock, timeout_s=timeout_s)
        except EmbeddedError as error:
            raise EmbeddedError(f"{self.name}: {error}\n{directory.last_log_lines(logged)}".rstrip()) from error
        finally:
            os.close(log)
        while not self._is_ready(directory, port, self._process.pid):
            if not self._process.is_running:
                lines = directory.last_log_lines(logged)
                if _ADDRESS_IN_USE in lines:
                    raise _PortTakenError(self._taken(port))
                raise EmbeddedError(f"{self.name} ended while it was starting\n{lines}".rstrip())
            if time.monotonic() >= deadline:
                lines = directory.last_log_lines(logged)
                raise EmbeddedError(f"{self.name} did not answer within {START_TIMEOUT_S:g} s\n{lines}".rstrip())
            time.sleep(_POLL_S)

    def _halt(self, pid: int) -> list[int]:
        """Stop the main process, which alone makes others, and return those it has made."""
        os.kill(pid, signal.SIGSTOP)
        process_table.wait_stopped([pid], STOP_TIMEOUT_S)
        return process_table.descendants(pid)

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.end(keep=True)

    def _check_port(self) -> None:
        """Say at once that the port is taken, before the server takes its time to find out."""
        try:
            with _bound(self.host, self._port):
                return
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _PortTakenError(self._taken(self._port)) from None
            raise EmbeddedError(f"{self.name} cannot listen on {self.host}:{self._port}: {error.strerror}") from error

    def _taken(self, port: int) -> str:
        return f"port {port} on {self.host}, asked for by {self.name}, is taken; choose another, or 0 for any free one"


def free_port(host: str) -> int:
    """A port that nobody has now; whoever is first gets it."""
    with _bound(host, 0) as bound:
        port: int = bound.getsockname()[1]
        return port


def _bound(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound
