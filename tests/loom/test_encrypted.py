"""Clients over TLS whose handshake fails: each is counted, and told of in one line that says why."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import grpc
import pytest
import trustme

from app.loom.proxy.limits import Limits
from tests.loom.account import WAIT_S, eventually, refuses
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, Front, proxied, serving
from tests.loom.raw import client

HELLO_CUT = b"\x16\x03\x01\x02\x00\x01"
"""The beginning of a ClientHello."""


class Certificates:
    def __init__(self, *, mutual: bool = False) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("localhost", "127.0.0.1")
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(self.server)
        self.server.set_alpn_protocols(["h2"])
        if mutual:
            self.authority.configure_trust(self.server)
            self.server.verify_mode = ssl.CERT_REQUIRED
        self.client = ssl.create_default_context()
        self.authority.configure_trust(self.client)


async def plain(front: Front, _: Certificates) -> None:
    async with client(front.port) as caller:
        await caller.gone()


async def left(front: Front, _: Certificates) -> None:
    async with client(front.port, HELLO_CUT):
        pass


async def silent(front: Front, _: Certificates) -> None:
    async with client(front.port, b"") as caller:
        await caller.gone()


async def untrusting(front: Front, _: Certificates) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection(
            "127.0.0.1", front.port, ssl=ssl.create_default_context(), server_hostname="localhost"
        )


async def unknown(front: Front, certificates: Certificates) -> None:
    """Without the certificate that is asked for, which in TLS 1.3 the client hears of after its handshake."""
    async with client(front.port, tls=certificates.client) as caller:
        await caller.gone()


@pytest.mark.parametrize(
    ("come", "why", "said"),
    [
        (plain, "plaintext", "it speaks no TLS, and this port does"),
        (left, "handshake", "it left during the TLS handshake"),
        (silent, "handshake", "its TLS handshake was not done within 0.3 s"),
        (untrusting, "handshake", "TLS handshake"),
        (unknown, "handshake", "its TLS handshake failed: peer did not return a certificate"),
    ],
)
async def test_a_handshake_that_fails_is_counted_and_told_and_the_next_client_is_served(
    come: Callable[[Front, Certificates], Awaitable[None]],
    why: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    certificates = Certificates(mutual=come is unknown)
    limits = Limits(handshake_s=0.3 if come is silent else WAIT_S)
    async with (
        serving(Backend()) as (_, port),
        proxied(port, limits, front_tls=certificates.server) as front,
    ):
        await come(front, certificates)
        await front.account.until(lambda: bool(front.account.counts))
        assert front.account.counts == {f"refused {why}": 1}
        assert said in caplog.text
        assert len(caplog.records) == 1
        if come is not unknown:
            root = certificates.authority.cert_pem.bytes()
            credentials = grpc.ssl_channel_credentials(root)
            async with grpc.aio.secure_channel(f"localhost:{front.port}", credentials, UNLIMITED) as channel:
                assert await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"


async def test_stopping_waits_for_no_handshake_and_listens_no_more() -> None:
    certificates = Certificates()
    async with (
        serving(Backend()) as (_, port),
        proxied(port, Limits(handshake_s=10 * WAIT_S), front_tls=certificates.server) as front,
        client(front.port, HELLO_CUT) as caller,
    ):
        await asyncio.wait_for(front.proxy.stop(0), WAIT_S)
        await eventually(lambda: refuses(front.port))
        await caller.gone()


async def test_one_handshake_too_many_is_closed_and_counted() -> None:
    certificates = Certificates()
    async with (
        serving(Backend()) as (_, port),
        proxied(port, Limits(connections=1, handshake_s=10 * WAIT_S), front_tls=certificates.server) as front,
        client(front.port, HELLO_CUT),
        client(front.port, HELLO_CUT) as second,
    ):
        await second.gone()
        await front.account.until(lambda: front.account.counts == {"refused full": 1})
