"""The stack of this checkout's docker-compose.yaml: its app, scaled, with PostgreSQL and Redis."""

from __future__ import annotations

import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.compose import docker
from app.compose.errors import ComposeError
from app.compose.ports import LOOPBACK, free_block
from app.compose.server import ComposeServer

ROOT = Path(__file__).resolve().parents[2]
UP_TIMEOUT_S = 1_200.0
"""Images may have to be pulled and built first."""
HEALTHY_TIMEOUT_S = 180
DOWN_TIMEOUT_S = 120.0
READY_TIMEOUT_S = 90.0
LOG_LINES_TOLD = 3
_POLL_S = 0.05
_HTTP_PORT = "8080/tcp"
_PROBES = {
    "postgres": ("pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "app"),
    "redis": ("redis-cli", "ping"),
}


class ComposeStack:
    """`apps` replicas of the app with `settings` (its environment variables), in a project of its own.

    Nothing of another project is touched: names, volumes, network and image are this one's, and so are the ports, which
    are free ones of loopback. All methods raise `ComposeError`.
    """

    def __init__(self, *, apps: int, settings: Mapping[str, str]) -> None:
        self.project = f"stampede-scenario-{os.getpid()}"
        self._apps = apps
        self._password = secrets.token_hex(16)
        ports = free_block(2 + 2 * apps)
        self._postgres_port, self._redis_port = ports[0], ports[1]
        self._http_ports, self._grpc_ports = ports[2 : 2 + apps], ports[2 + apps :]
        # Not restarted by Docker: one that cannot start says so, and is not tried again and again.
        literal = {name: value.replace("$", "$$") for name, value in settings.items()}
        self._over = json.dumps({"services": {"app": {"environment": literal, "restart": "no"}}})
        self._containers: dict[int, str] = {}
        self._servers: dict[str, ComposeServer] = {}

    @property
    def postgres(self) -> ComposeServer:
        return self._servers["postgres"]

    @property
    def redis(self) -> ComposeServer:
        return self._servers["redis"]

    def address(self, number: int) -> tuple[str, int]:
        """Host and port of the HTTP of one of the apps."""
        return LOOPBACK, self._http_ports[number]

    def database_url(self, role: str) -> str:
        return f"postgresql://{role}:{self._password}@{LOOPBACK}:{self._postgres_port}/app"

    def up(self) -> None:
        """Build the image, start all, and return when it is healthy. What it started is `down`'s to remove, always."""
        docker.require()
        wait = ("--wait", "--wait-timeout", str(HEALTHY_TIMEOUT_S))
        try:
            self._compose(
                "up", "--detach", "--build", *wait, "--scale", f"app={self._apps}", "app", timeout_s=UP_TIMEOUT_S
            )
        except ComposeError as error:
            raise ComposeError(f"{error}{self._last_words()}") from None
        self._containers = self._by_number(self._compose("ps", "--quiet", "app").split())
        for service, probe in _PROBES.items():
            self._servers[service] = ComposeServer(self._compose("ps", "--quiet", service), service, probe)

    def down(self) -> None:
        """Remove the containers, the network, the volumes and the image. Harmless where there are none."""
        for server in self._servers.values():
            with suppress(ComposeError):
                server.resume()  # what is frozen heeds nothing
        try:
            # Nobody is being served any more, so there is nothing to drain.
            self._compose("down", "--volumes", "--remove-orphans", "--timeout", "0", timeout_s=DOWN_TIMEOUT_S)
        except ComposeError as error:
            raise ComposeError(
                f"{error}; what is left is removed by: docker compose -p {self.project} down -v"
            ) from None
        with suppress(ComposeError):  # where it was not built
            docker.run("image", "rm", "--force", f"{self.project}-app")

    def kill(self, number: int) -> None:
        """SIGKILL to one of the apps."""
        docker.run("kill", "--signal", "KILL", self._containers[number])

    def restart(self, numbers: Sequence[int]) -> None:
        """Start these apps again, all at once; running ones are killed first. They have the same addresses as before.

        Which of the containers has which of the addresses may change.
        """
        containers = [self._containers[number] for number in numbers]
        if running := [str(each["Id"]) for each in _inspect(containers) if each["State"]["Running"]]:
            docker.run("kill", "--signal", "KILL", *running)
        docker.run("start", *containers)
        deadline = time.monotonic() + READY_TIMEOUT_S
        for number in numbers:
            self._wait_ready(number, deadline)
        self._containers |= self._by_number(containers)

    def _compose(self, *words: str, timeout_s: float = docker.ANSWER_TIMEOUT_S) -> str:
        # Compose passes on what the file names of the shell's environment: the app's settings come by `_over` alone.
        ours = ("APP_", "HOST_", "COMPOSE_FILE", "COMPOSE_PROFILES")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {
            "COMPOSE_PROJECT_NAME": self.project,
            "POSTGRES_PASSWORD": self._password,
            "HOST_POSTGRES_PORT": str(self._postgres_port),
            "HOST_REDIS_PORT": str(self._redis_port),
            "HOST_HTTP_PORT": _port_range(self._http_ports),
            "HOST_GRPC_PORT": _port_range(self._grpc_ports),
        }
        files = ("--project-directory", str(ROOT), "--file", str(ROOT / "docker-compose.yaml"), "--file", "-")
        return docker.run("compose", *files, *words, text=self._over, environment=environment, timeout_s=timeout_s)

    def _by_number(self, containers: Sequence[str]) -> dict[int, str]:
        """Which of these containers is which app, by its port: the engine deals out a range as it likes."""
        found = {}
        for each in _inspect(containers):
            for bound in each["NetworkSettings"]["Ports"].get(_HTTP_PORT) or ():
                found[self._http_ports.index(int(bound["HostPort"]))] = str(each["Id"])
        if len(found) != len(containers):
            raise ComposeError(f"{len(found)} of {len(containers)} apps have a port: the others have ended")
        return found

    def _wait_ready(self, number: int, deadline: float) -> None:
        host, port = self.address(number)
        while True:
            try:
                with urllib.request.urlopen(f"http://{host}:{port}/ready", timeout=2.0):
                    return
            except (urllib.error.URLError, OSError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise ComposeError(
                        f"app {number} is not ready {READY_TIMEOUT_S:g} s after its start: {error}"
                    ) from None
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        with suppress(ComposeError):
            tail = ("--no-color", "--no-log-prefix", "--tail", str(LOG_LINES_TOLD))
            if said := self._compose("logs", *tail, "app").splitlines():
                return "; the app said: " + " / ".join(said[-LOG_LINES_TOLD:])
        return ""


def _inspect(containers: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(docker.run("inspect", *containers))
    return found


def _port_range(ports: range) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]}-{ports[-1]}"
