"""An embedded Valkey, which speaks the Redis protocol."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path
from typing import ClassVar

from app.embedded import wheels
from app.embedded.directory import ServerDirectory
from app.embedded.server import EmbeddedServer

_ANSWER_TIMEOUT_S = 1.0


class EmbeddedRedis(EmbeddedServer):
    """Valkey from its wheel, on loopback, without a password: any user of this machine may connect.

    It keeps nothing on disk: after `restart`, or `kill` and `start`, it is empty.
    """

    name: ClassVar[str] = "valkey"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    _program: Path

    def url(self) -> str:
        """Where it is, as `redis://host:port/0`. Raises `EmbeddedError` before the first start."""
        self._require_started()
        return f"redis://{self.host}:{self.port}/0"

    def _find_programs(self, directory: ServerDirectory) -> None:
        self._program = wheels.valkey_program(self._account, directory.path)

    def _command(self, directory: ServerDirectory, port: int) -> list[str]:
        options = {
            "bind": self.host,
            "port": str(port),
            "dir": str(directory.data),
            "save": "",
            "appendonly": "no",
            "maxmemory": "64mb",
            "maxmemory-policy": "allkeys-lru",
            **self._options,
        }
        return [str(self._program), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _is_ready(self, directory: ServerDirectory, port: int, pid: int) -> bool:  # noqa: ARG002 - asked of every server
        try:
            with socket.create_connection((self.host, port), _ANSWER_TIMEOUT_S) as connection:
                connection.sendall(b"INFO server\r\n")
                answer = connection.recv(65536)
        except OSError:
            return False
        return re.search(rb"^process_id:%d\r$" % pid, answer, re.MULTILINE) is not None
