"""What a scenario runs on: PostgreSQL, Redis, and replicas of the app, and the ways in which they are broken."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Protocol, Self, TypeVar

from app.settings import ENV_PREFIX, Settings

APP_ROLE, COUNTING_ROLE, SUPERUSER = "app", "loadtest", "postgres"

T = TypeVar("T")


class Server(Protocol):
    """PostgreSQL or Redis. Each call blocks until it has taken effect."""

    def kill(self) -> None:
        """SIGKILL; the data stay where they are kept at all."""

    def start(self) -> None:
        """Start it after `kill`, at the same address, and wait until it answers."""

    def suspend(self) -> None:
        """Stop it without ending it: it accepts connections, as the kernel does that, and answers nothing."""

    def resume(self) -> None:
        """Let it go on after `suspend`."""

    def log(self) -> str:
        """What it has logged so far."""


class Fleet(ABC):
    """PostgreSQL, Redis, and so many replicas of the app in mode `full` with `settings`. A context manager.

    What it starts ends with it. Its methods block, and raise `EmbeddedError` or `ComposeError`.
    """

    made_of: ClassVar[str]
    """What and where its parts are, for a report."""

    def __init__(self, replicas: int, settings: Mapping[str, str]) -> None:
        self._count = replicas
        self._settings = dict(settings)

    def __len__(self) -> int:
        """How many replicas there are."""
        return self._count

    def setting(self, name: str) -> float:
        """The number that a setting of the replicas has: as given, or its default."""
        value = self._settings.get(ENV_PREFIX + name.upper(), Settings.model_fields[name].default)
        return float(value)

    @property
    @abstractmethod
    def postgres(self) -> Server: ...

    @property
    @abstractmethod
    def redis(self) -> Server: ...

    @property
    @abstractmethod
    def database_url(self) -> str:
        """For a superuser, who is not the app: its statements are counted apart."""

    @property
    @abstractmethod
    def counting_url(self) -> str:
        """For a role that may read everybody's statistics."""

    @abstractmethod
    def address(self, number: int) -> tuple[str, int]:
        """Host and port of a replica's HTTP; they stay the same when it is restarted."""

    @abstractmethod
    def kill(self, number: int) -> None:
        """SIGKILL to a replica."""

    @abstractmethod
    def restart(self, numbers: Sequence[int]) -> None:
        """Start these replicas again, all at once, and wait until they serve; running ones are killed first."""

    @abstractmethod
    def start(self) -> None:
        """Start all, and wait until it serves."""

    @abstractmethod
    def end(self) -> None:
        """End all, whatever of it was started."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()


async def in_thread(work: Callable[[], T]) -> T:
    """Do blocking work on the fleet; when cancelled, only once it has ended, so that nothing is left half done."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
