"""Connections to Redis by address: its name is looked up by our own resolver, which hangs for nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import Connection, SSLConnection

from app.concurrency.resolver import Resolver


class NamedConnection(Connection):
    """Tries the addresses of its host in turn. `resolver` is shared by the connections of a pool."""

    def __init__(self, *, resolver: Resolver, **options: Any) -> None:
        super().__init__(**options)
        self._resolver = resolver
        self._address: str | None = None

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "host": self._address}

    async def _connect(self) -> None:
        failure: OSError | None = None
        for address in await self._resolver.addresses(self.host):
            self._address = address
            try:
                await super()._connect()  # type: ignore[no-untyped-call]
            except OSError as error:
                failure = error
            else:
                return
        raise failure or OSError(f"{self.host} has no address")


class NamedTlsConnection(NamedConnection, SSLConnection):
    """The same over TLS: the certificate must be the name's, whichever the address."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        return {**super()._connection_arguments(), "server_hostname": self.host}
