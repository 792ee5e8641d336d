"""A fleet of this machine's own processes: embedded servers, and an app a process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from app.embedded.directory import LogDirectory
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.scenarios.fleet import APP_ROLE, COUNTING_ROLE, Fleet, Server

_STARTS_AT_A_TIME = 4


class EmbeddedFleet(Fleet):
    """It ends with this process, however that ends. Raises `EmbeddedError`."""

    made_of: ClassVar[str] = "PostgreSQL and Valkey, all on one machine with the load"

    def __init__(self, replicas: int, settings: Mapping[str, str]) -> None:
        super().__init__(replicas, settings)
        self._stack = EmbeddedStack()
        self._replicas: list[Replica] = []
        self._log_directory = LogDirectory("scenario")
        self._logs: Path | None = None

    @property
    def postgres(self) -> Server:
        return self._stack.postgres

    @property
    def redis(self) -> Server:
        return self._stack.redis

    @property
    def database_url(self) -> str:
        return self._stack.postgres.url()

    @property
    def counting_url(self) -> str:
        return self._stack.postgres.url(COUNTING_ROLE)

    def address(self, number: int) -> tuple[str, int]:
        place = urlsplit(self._replicas[number].http_url)
        return place.hostname or "", place.port or 0

    def kill(self, number: int) -> None:
        self._replicas[number].kill()

    def restart(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._replicas[number].kill()
        fresh = {}
        for number in numbers:
            _, http_port = self.address(number)
            grpc_port = self._replicas[number].grpc_target.rpartition(":")[2]
            fresh[number] = self._replica(
                number, {"APP_HTTP_PORT": str(http_port), "APP_GRPC_PORT": grpc_port, "APP_DATABASE_MIGRATE": "false"}
            )
        for number, replica in fresh.items():
            self._replicas[number] = replica
        _start_all(list(fresh.values()), at_a_time=len(fresh))

    def start(self) -> None:
        self._logs = self._log_directory.__enter__()
        self._stack.start()
        self._replicas = [self._replica(number, {}) for number in range(len(self))]
        self._replicas[0].start()  # which migrates
        _start_all(self._replicas[1:], at_a_time=_STARTS_AT_A_TIME)

    def end(self) -> None:
        try:
            # Nobody is being served any more, so there is nothing to drain.
            for replica in self._replicas:
                replica.kill()
        finally:
            try:
                self._stack.stop()
            finally:
                if self._logs is not None:
                    self._log_directory.__exit__(None, None, None)

    def _replica(self, number: int, settings: Mapping[str, str]) -> Replica:
        assert self._logs is not None  # noqa: S101 - made when the fleet starts
        environment = {
            "APP_LOG_LEVEL": "warning",
            "APP_DATABASE_URL": self._stack.postgres.url(APP_ROLE),
            "APP_REDIS_URL": self._stack.redis.url(),
            **self._settings,
            **settings,
        }
        return Replica(environment, log=self._logs / f"replica-{number}.log")


def _start_all(replicas: Sequence[Replica], *, at_a_time: int) -> None:
    if not replicas:
        return
    with ThreadPoolExecutor(at_a_time, thread_name_prefix="replica") as threads:
        starts = [threads.submit(replica.start) for replica in replicas]
    for start in starts:
        start.result()
