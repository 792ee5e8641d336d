"""Both embedded servers together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis


class EmbeddedStack:
    """PostgreSQL and Valkey: both run, or neither. A port of 0 is any free one."""

    def __init__(self, *, postgres_port: int = 0, redis_port: int = 0) -> None:
        self.postgres = EmbeddedPostgres(port=postgres_port)
        self.redis = EmbeddedRedis(port=redis_port)

    def start(self) -> None:
        """Start both at once. Raises `EmbeddedError` when one fails; the other is stopped then."""
        try:
            with ThreadPoolExecutor(2, thread_name_prefix="embedded") as threads:
                starts = [threads.submit(self.postgres.start), threads.submit(self.redis.start)]
            for start in starts:
                start.result()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both. Harmless where none runs."""
        try:
            self.postgres.stop()
        finally:
            self.redis.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
