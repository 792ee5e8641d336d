"""What a scenario runs on: embedded servers, and replicas of the app, each a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

from app.embedded.directory import LogDirectory
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.settings import ENV_PREFIX, Settings

APP_ROLE, COUNTING_ROLE = "app", "loadtest"
_STARTS_AT_A_TIME = 4

T = TypeVar("T")


class Fleet:
    """PostgreSQL, Valkey, and `replicas` apps in mode `full` with `settings`. A context manager.

    What it starts ends with it, and with this process however that ends. Raises `EmbeddedError`.
    """

    def __init__(self, replicas: int, settings: Mapping[str, str]) -> None:
        self.stack = EmbeddedStack()
        self._count = replicas
        self._settings = dict(settings)
        self._replicas: list[Replica] = []
        self._log_directory = LogDirectory("scenario")
        self._logs = Path()

    @property
    def replicas(self) -> Sequence[Replica]:
        return self._replicas

    @property
    def database_url(self) -> str:
        """For a superuser, who is not the app: its statements are counted apart."""
        return self.stack.postgres.url()

    @property
    def counting_url(self) -> str:
        """For a role that may read everybody's statistics."""
        return self.stack.postgres.url(COUNTING_ROLE)

    def setting(self, name: str) -> float:
        """The number that a setting of the replicas has: as given, or its default."""
        value = self._settings.get(ENV_PREFIX + name.upper(), Settings.model_fields[name].default)
        return float(value)

    def address(self, number: int) -> tuple[str, int]:
        """Host and port of a replica's HTTP; they stay the same when it is restarted."""
        place = urlsplit(self._replicas[number].http_url)
        return place.hostname or "", place.port or 0

    def restart(self, numbers: Sequence[int]) -> None:
        """Start these replicas again, all at once, each on the ports that it had; running ones are killed first."""
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

    def __enter__(self) -> Self:
        self._logs = self._log_directory.__enter__()
        try:
            self.stack.start()
            self._replicas = [self._replica(number, {}) for number in range(self._count)]
            self._replicas[0].start()  # which migrates
            _start_all(self._replicas[1:], at_a_time=_STARTS_AT_A_TIME)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        try:
            # Nobody is being served any more, so there is nothing to drain.
            for replica in self._replicas:
                replica.kill()
        finally:
            try:
                self.stack.stop()
            finally:
                self._log_directory.__exit__(None, None, None)

    def _replica(self, number: int, settings: Mapping[str, str]) -> Replica:
        environment = {
            "APP_LOG_LEVEL": "warning",
            "APP_DATABASE_URL": self.stack.postgres.url(APP_ROLE),
            "APP_REDIS_URL": self.stack.redis.url(),
            **self._settings,
            **settings,
        }
        return Replica(environment, log=self._logs / f"replica-{number}.log")


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work on the fleet; when cancelled, only once it has ended, so that nothing is left half done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _start_all(replicas: Sequence[Replica], *, at_a_time: int) -> None:
    if not replicas:
        return
    with ThreadPoolExecutor(at_a_time, thread_name_prefix="replica") as threads:
        starts = [threads.submit(replica.start) for replica in replicas]
    for start in starts:
        start.result()
