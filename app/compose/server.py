"""One container of the stack that can be broken and mended."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.compose import docker
from app.compose.errors import ComposeError

READY_TIMEOUT_S = 30.0
_POLL_S = 0.05


class ComposeServer:
    """PostgreSQL or Redis in its container. `probe` is a command in there that succeeds when it answers.

    All methods return when it is done, and raise `ComposeError`.
    """

    def __init__(self, container: str, service: str, probe: Sequence[str]) -> None:
        self._container = container
        self._service = service
        self._probe = probe
        self._is_suspended = False

    def kill(self) -> None:
        """SIGKILL, and down it stays: Docker restarts what crashed, not what was killed by its command."""
        docker.run("kill", "--signal", "KILL", self._container)

    def start(self) -> None:
        """Start it after `kill`, on its volumes and its port, and wait until it answers."""
        docker.run("start", self._container)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                docker.run("exec", self._container, *self._probe)
            except ComposeError as error:
                if time.monotonic() > deadline:
                    raise ComposeError(f"{self._service} does not answer after its start: {error}") from None
                time.sleep(_POLL_S)
            else:
                return

    def suspend(self) -> None:
        """Freeze all of its processes: it accepts connections, as the kernel does that, and answers nothing."""
        docker.run("pause", self._container)
        self._is_suspended = True

    def log(self) -> str:
        """What it has logged so far, as far as Docker keeps it."""
        return docker.run("logs", self._container, with_errors=True)

    def resume(self) -> None:
        """Let it go on after `suspend`. Harmless where it does already."""
        if self._is_suspended:
            docker.run("unpause", self._container)
            self._is_suspended = False
