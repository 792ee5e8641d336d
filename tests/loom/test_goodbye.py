"""How connections end over TLS: gRPC's peers never answer that it ends, and nobody is kept waiting for that."""

from __future__ import annotations

import asyncio

import grpc

from app.loom.call import Ending, Status
from app.loom.proxy import framing
from app.loom.proxy.interception import Interception
from app.loom.proxy.legs import LOOK_S, LOOKS
from tests.loom.account import WAIT_S
from tests.loom.backend import Backend
from tests.loom.conftest import proxied
from tests.loom.raw import Peer, client, scripted
from tests.loom.test_encrypted import Certificates
from tests.loom.wire import REQUEST_HEADERS, RESPONSE_HEADERS, data, message


async def test_clients_hear_soon_of_a_backend_that_was_killed(interception: Interception | None) -> None:
    certificates = Certificates()
    may_die = asyncio.Event()

    async def script(peer: Peer) -> None:
        stream, _ = await peer.headers()
        peer.send(peer.block(stream, RESPONSE_HEADERS) + data(stream, message(b"first")))
        await asyncio.wait_for(may_die.wait(), WAIT_S)
        peer.writer.transport.abort()

    credentials = grpc.ssl_channel_credentials(certificates.authority.cert_pem.bytes())
    async with (
        scripted(script) as port,
        proxied(port, front_tls=certificates.server, interception=interception) as front,
    ):
        async with grpc.aio.secure_channel(f"localhost:{front.port}", credentials) as channel:
            call = channel.unary_stream("/test.Raw/Call")(b"ask")
            assert await call.read() == b"first"
            may_die.set()
            assert await asyncio.wait_for(call.code(), WAIT_S) is grpc.StatusCode.UNAVAILABLE
        told = await front.account.one()
        assert (told.end.status, told.end.ending) == (Status.UNAVAILABLE, Ending.BACKEND_LOST)


async def test_a_backend_connection_ends_soon_after_its_client(interception: Interception | None) -> None:
    authority = Certificates().authority
    pair = authority.issue_cert("127.0.0.1")
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Backend(),))
    chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(pair.private_key_pem.bytes(), chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    trusting = Certificates().client
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2"])
    async with proxied(port, behind_tls=trusting, interception=interception) as front:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            assert await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
        await front.account.until(lambda: front.account.counts["disconnected"] == 1)
        assert front.proxy.connections == 0
    await server.stop(0)


async def test_what_a_client_has_not_read_yet_is_not_cut_off() -> None:
    certificates = Certificates()
    piece = data(1, message(bytes(16_000)))

    async def script(peer: Peer) -> None:
        await peer.headers()
        peer.send(peer.block(1, RESPONSE_HEADERS))
        for _ in range(PIECES):
            peer.send(piece)
            await peer.writer.drain()

    async with (
        scripted(script) as port,
        proxied(port, front_tls=certificates.server) as front,
        client(front.port, tls=certificates.client) as caller,
    ):
        await caller.next(framing.SETTINGS)
        caller.send(caller.block(1, REQUEST_HEADERS))
        await front.account.until(lambda: bool(front.account.calls))
        (connection,) = front.proxy._connections
        count = 0
        while not connection._backend.is_finished:  # type: ignore[union-attr]
            count += len(await asyncio.wait_for(caller.reader.read(65_536), WAIT_S))
        await asyncio.sleep(4 * LOOKS * LOOK_S)  # it stands still with much unread
        while rest := await asyncio.wait_for(caller.reader.read(1 << 20), WAIT_S):
            count += len(rest)
        assert count > PIECES * len(piece)  # by the headers before the first of them


PIECES = 2_500
