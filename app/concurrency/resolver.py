"""Names to addresses, without a name server that hangs holding up more than those who ask for that name."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from app.concurrency.clock import Clock, monotonic

FRESH_S: Final = 1.0
"""How long addresses are used without asking again."""
PATIENCE_S: Final = 0.05
"""How long a lookup is waited for where earlier addresses could be used instead."""

Lookup = Callable[..., list[tuple[Any, ...]]]


class Resolver:
    """At most one lookup a name at a time, in a thread of its own, whoever waits for it and however many give up.

    Event loops look names up in a handful of threads, which all that connects shares: lookups that hang, and that are
    begun anew by every retry, would keep everything else from connecting too. Belongs to one event loop.
    """

    def __init__(self, lookup: Lookup = socket.getaddrinfo, *, clock: Clock = monotonic) -> None:
        self._lookup = lookup
        self._clock = clock
        self._flights: dict[str, asyncio.Future[list[str]]] = {}
        self._known: dict[str, tuple[float, list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """In the order of the name server. Those known from before, where it is too slow or can't answer now.

        Raises `OSError` where there are none; waits for the lookup as long as the caller does.
        """
        if _is_address(host):
            return [host]
        looked_up_at, known = self._known.get(host, (float("-inf"), []))
        if self._clock() - looked_up_at < FRESH_S:
            return known
        flight = self._flights.get(host)
        if flight is None:
            flight = self._flights[host] = self._begin(host)
        try:
            # asyncio.wait leaves the flight alone when this caller is cancelled or has waited enough.
            await asyncio.wait({flight}, timeout=PATIENCE_S if known else None)
            return flight.result() if flight.done() else known
        except socket.gaierror as error:
            if known and error.errno == socket.EAI_AGAIN:
                return known
            raise

    def _begin(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        flight: asyncio.Future[list[str]] = loop.create_future()

        def land(found: list[str] | OSError) -> None:
            del self._flights[host]
            if isinstance(found, OSError):
                flight.set_exception(found)
                flight.exception()  # whoever waited may have left
            else:
                self._known[host] = self._clock(), found
                flight.set_result(found)

        def look_up() -> None:
            found: list[str] | OSError
            try:
                answers = self._lookup(host, None, type=socket.SOCK_STREAM)
                found = list(dict.fromkeys(str(address[0]) for *_, address in answers))
            except OSError as error:
                found = error
            except UnicodeError:  # where it can be no name
                found = socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name")
            if not loop.is_closed():
                loop.call_soon_threadsafe(land, found)

        # Daemonic: a lookup cannot be cancelled, and nothing at the process' end waits for one.
        threading.Thread(target=look_up, name=f"lookup-{host}", daemon=True).start()
        return flight


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
