"""A fleet of containers: this checkout's Compose stack, in a project of its own."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from app.compose.stack import ComposeStack
from app.scenarios.fleet import COUNTING_ROLE, SUPERUSER, Fleet, Server


class ComposeFleet(Fleet):
    """Containers outlive a process that is killed: their project is then to be removed by hand.

    Raises `ComposeError`.
    """

    made_of: ClassVar[str] = "PostgreSQL and Redis, containers of the Compose stack, on one machine with the load"

    def __init__(self, replicas: int, settings: Mapping[str, str]) -> None:
        super().__init__(replicas, settings)
        # The compose file makes loads slow, so that a stampede shows; here they are as slow as the scenario says.
        ours = {"APP_LOG_LEVEL": "warning", "APP_LOAD_DELAY_MS": "0"}
        self._stack = ComposeStack(apps=replicas, settings={**ours, **settings})

    @property
    def postgres(self) -> Server:
        return self._stack.postgres

    @property
    def redis(self) -> Server:
        return self._stack.redis

    @property
    def database_url(self) -> str:
        return self._stack.database_url(SUPERUSER)

    @property
    def counting_url(self) -> str:
        return self._stack.database_url(COUNTING_ROLE)

    def address(self, number: int) -> tuple[str, int]:
        return self._stack.address(number)

    def kill(self, number: int) -> None:
        self._stack.kill(number)

    def restart(self, numbers: Sequence[int]) -> None:
        self._stack.restart(numbers)

    def start(self) -> None:
        self._stack.up()

    def end(self) -> None:
        with _undisturbed():
            self._stack.down()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C is not heeded: it would leave containers behind that nobody owns. All waits here are bounded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
