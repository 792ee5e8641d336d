"""Peers that break HTTP/2 where the intercept lane reads it: the record says who, and how."""

from __future__ import annotations

import pytest

from app.concurrency.breaker import BreakerState, CircuitBreaker
from app.loom.call import Ending, Status
from app.loom.proxy import framing
from app.loom.proxy.interception import CallInterception
from tests.loom.conftest import Untouched, proxied
from tests.loom.raw import Peer, client, scripted
from tests.loom.wire import REQUEST_HEADERS, data, frame

ON_NO_STREAM = data(0, b"x")
"""DATA belongs to a stream (RFC 9113, section 6.1)."""


async def test_a_backend_that_breaks_http_2_under_a_call_is_named_and_counts_as_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.headers()
        peer.send(ON_NO_STREAM)
        await peer.end()

    breaker = CircuitBreaker(failures=1)
    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched(), breaker=breaker) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await caller.gone()
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.UNAVAILABLE, Ending.BROKEN_BY_BACKEND)
        assert told.end.message.startswith("the backend broke HTTP/2: ")
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.account.counts["broken backend"] == 1
        assert front.account.lost == [(1, True)]
        assert breaker.state is BreakerState.OPEN


class Failing:
    """An error of Loom's own."""

    is_active = True

    def for_call(self, call: int | None, method: str) -> CallInterception | None:
        raise RuntimeError("on purpose")


async def test_an_error_of_looms_own_ends_that_connection_and_is_told_as_its_own() -> None:
    async def script(peer: Peer) -> None:
        await peer.end()

    breaker = CircuitBreaker(failures=1)
    async with (
        scripted(script) as port,
        proxied(port, interception=Failing(), breaker=breaker) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await caller.gone()
        told = await front.account.one()
        assert (told.end.ending, told.end.message) == (Ending.CUT, "Loom failed")
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.account.counts["broken loom"] == 1
        assert breaker.state is BreakerState.CLOSED


@pytest.mark.parametrize("broken", [ON_NO_STREAM, frame(framing.SETTINGS, 0, 0, b"odd")])
async def test_a_client_that_breaks_http_2_is_named_and_tells_nothing_of_the_backend(broken: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.end()

    breaker = CircuitBreaker(failures=1)
    async with (
        scripted(script) as port,
        proxied(port, interception=Untouched(), breaker=breaker) as front,
        client(front.port) as caller,
    ):
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: bool(front.account.calls))
        caller.send(broken)
        await caller.gone()
        told = await front.account.one()
        assert told.end.ending is Ending.BROKEN_BY_CLIENT
        assert told.end.message.startswith("the client broke HTTP/2: ")
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.account.counts["broken client"] == 1
        assert front.account.lost == [(1, False)]
        assert breaker.state is BreakerState.CLOSED
