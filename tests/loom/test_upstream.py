"""Dialling the backend, and TLS on either leg."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme

from app.loom.call import Status
from app.loom.proxy import framing, tls
from app.loom.proxy.upstream import DialError, P, Upstream
from tests.loom.account import WAIT_S
from tests.loom.backend import Backend
from tests.loom.conftest import UNLIMITED, proxied
from tests.loom.raw import Peer, Script, answer_all, client, scripted
from tests.loom.wire import REQUEST_HEADERS, data, message


async def test_a_backend_that_is_down_closes_the_client_and_may_come_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with proxied(port) as front:
        async with client(front.port) as caller:
            await caller.end()
        assert front.account.counts == {"dial failed": 1}
        async with scripted(answer_all, port=port), client(front.port) as caller:
            caller.send(caller.block(1, REQUEST_HEADERS), data(1, message(b"ask"), end=True))
            assert (await front.account.one()).end.status is Status.OK


async def test_a_dial_that_hangs_is_given_up_in_time() -> None:
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(5):
            filler = opened.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        upstream = Upstream("127.0.0.1", full.getsockname()[1], timeout_s=0.2, handshake_s=1)
        with pytest.raises(DialError, match=r"127\.0\.0\.1: (no answer within|connection re)"):
            await upstream.dial(asyncio.Protocol)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 without being told")
async def test_addresses_are_taken_in_turn_and_one_that_is_down_is_passed_over() -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    class Named(Upstream):
        async def _resolve(self) -> list[str]:
            return ["127.0.0.1", "127.0.0.2", "127.0.0.3"]

    def note(host: str) -> Script:
        async def script(peer: Peer) -> None:
            asked.put_nowait(host)
            await peer.end()

        return script

    async with (
        scripted(note("127.0.0.1"), "127.0.0.1") as port,
        scripted(note("127.0.0.3"), "127.0.0.3", port),
    ):
        upstream = Named("backend.test", port, timeout_s=6 * WAIT_S, handshake_s=WAIT_S)
        for number in range(4):
            connected = await upstream.dial(_Closing)
            assert await asyncio.wait_for(asked.get(), WAIT_S) == TURNS[number]
            connected.transport.close()


async def test_the_time_in_which_this_process_could_not_run_is_not_held_against_the_backend() -> None:
    """It is held up past the deadline while the name is being resolved, and again while it connects."""
    loop = asyncio.get_running_loop()

    def hold_up(resolved: threading.Event) -> None:
        assert resolved.wait(WAIT_S)
        time.sleep(0.3)

    class Busy(Upstream):
        async def _resolve(self) -> list[str]:
            resolved = threading.Event()
            loop.call_soon(hold_up, resolved)
            await loop.run_in_executor(None, resolved.set)
            return ["127.0.0.1"]

        async def _connect(self, protocol: Callable[[], P], address: str) -> P:
            loop.call_soon(time.sleep, 0.3)
            return await super()._connect(protocol, address)

    async with scripted(Peer.end) as port:
        upstream = Busy("backend.test", port, timeout_s=0.2, handshake_s=WAIT_S)
        (await upstream.dial(_Closing)).transport.close()


TURNS = ["127.0.0.1", "127.0.0.3", "127.0.0.3", "127.0.0.1"]
"""Of three, the second is down."""


class _Closing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport


async def test_a_name_that_there_is_not_is_a_dial_error_that_says_so() -> None:
    for name in ("no-such-host.invalid", "x" * 70 + ".test"):
        with pytest.raises(DialError, match=name):
            await Upstream(name, 1, timeout_s=5, handshake_s=5).dial(asyncio.Protocol)


async def test_sockets_find_out_when_their_peer_has_vanished() -> None:
    async with scripted(Peer.end) as port, proxied(port) as front, client(front.port) as caller:
        await caller.next(framing.SETTINGS)
        (connection,) = front.proxy._connections
        for leg in connection._legs():
            probed = leg.transport.get_extra_info("socket")
            assert probed.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


class Certificates:
    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("localhost", "127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        self.authority.configure_trust(self.client)
        for context in (self.server, self.client):
            context.set_alpn_protocols(["h2"])


@pytest.mark.parametrize("mutual", [False, True])
async def test_tls_on_both_legs(mutual: bool, tmp_path: Path) -> None:
    authority = trustme.CA()
    files = {name: tmp_path / name for name in ("ca", "cert", "key")}
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(str(files["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(files["cert"]))
    issued.private_key_pem.write_to_path(str(files["key"]))
    pems = {name: file.read_bytes() for name, file in files.items()}
    backend = Backend()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((backend,))
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([(pems["key"], pems["cert"])], pems["ca"], require_client_auth=mutual),
    )
    await server.start()
    behind = tls.for_backend(
        authority=files["ca"], certificate=files["cert"] if mutual else None, key=files["key"] if mutual else None
    )
    front_tls = tls.for_clients(files["cert"], files["key"], client_authority=files["ca"] if mutual else None)
    async with proxied(port, behind_tls=behind, front_tls=front_tls) as front:
        credentials = grpc.ssl_channel_credentials(pems["ca"], *((pems["key"], pems["cert"]) if mutual else ()))
        async with grpc.aio.secure_channel(f"localhost:{front.port}", credentials, UNLIMITED) as channel:
            body = bytes(3_000_000)
            assert await channel.unary_unary("/test.Interop/Unary")(body, timeout=30) == body
        told = await front.account.one()
        assert (told.end.status, told.messages[1].size) == (Status.OK, len(body))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{front.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as plain:
                await channel.unary_unary("/test.Interop/Unary")(b"", timeout=5)
        assert plain.value.code() is grpc.StatusCode.UNAVAILABLE
        if mutual:
            stranger = grpc.ssl_channel_credentials(pems["ca"])
            async with grpc.aio.secure_channel(f"localhost:{front.port}", stranger) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await channel.unary_unary("/test.Interop/Unary")(b"", timeout=5)
        assert len(front.account.calls) == 1
    await server.stop(0)


async def test_a_backend_over_tls_must_agree_on_http_2() -> None:
    certificates = Certificates()
    certificates.server.set_alpn_protocols(["http/1.1"])
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=certificates.server)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream("127.0.0.1", port, timeout_s=5, handshake_s=5, tls=certificates.client)
    with pytest.raises(DialError, match="ALPN"):
        await upstream.dial(asyncio.Protocol)
    untrusting = ssl.create_default_context()
    upstream = Upstream("127.0.0.1", port, timeout_s=5, handshake_s=5, tls=untrusting)
    with pytest.raises(DialError, match="certificate"):
        await upstream.dial(asyncio.Protocol)
    server.close()
