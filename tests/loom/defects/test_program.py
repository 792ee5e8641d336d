"""13 to 18: the program around the calls: whom it trusts, how it starts and stops, and what it leaves behind."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import grpc
import psutil
import trustme
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

from app.cli.loom import loom as flags_of_loom
from app.proto.template.v1 import template_pb2 as pb
from tests.loom.account import WAIT_S, eventually, refuses
from tests.loom.backend import Backend
from tests.loom.conftest import Path as Way
from tests.loom.conftest import serving
from tests.loom.defects.front import ALONE, Front, fronted
from tests.loom.raw import Peer, scripted
from tests.loom.test_command import answers, probing
from tests.loom.test_command import loom as process
from tests.loom.test_grpcurl import HOSTILE, SERVICE, Echo, run

STREAMS, MESSAGES = 50, 20


async def test_13_the_grpcurl_command_of_a_hostile_call_makes_that_call_and_no_more(
    rules: Path | None, tmp_path: Path
) -> None:
    echo, server = Echo(), grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    reflection.enable_server_reflection([SERVICE], server, descriptor_pool.Default())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    request = pb.CreateTemplateRequest(template=pb.NewTemplate(name=HOSTILE)).SerializeToString()
    metadata = (("x-quote", "it's $(touch pwned) `touch pwned`"),)
    folder = tmp_path / "here"
    folder.mkdir()
    async with fronted(port, rules) as front:
        await front.loom.capture.schemas.schema()
        await front.channel.unary_unary(f"/{SERVICE}/CreateTemplate")(request, metadata=metadata, timeout=WAIT_S)
        told = await front.one()
        await run(told["grpcurl"], folder)
    await server.stop(0)
    assert echo.requests == [request, request]
    assert dict(echo.metadata)["x-quote"] == metadata[0][1]
    assert list(folder.iterdir()) == []


async def test_13_other_sites_and_other_names_are_refused_and_nobody_is_let_in_by_cors() -> None:
    async with serving(Backend()) as (_, port), fronted(port) as front:
        assert await front.channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
        (row,) = await front.ended(1)
        for path in (f"/api/replay/{row['id']}", "/api/clear", "/api/rules/reload"):
            for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
                refused = await front.http.post(path, headers=headers)
                assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)
        for host in ("evil.example", "evil.example:9998", ""):
            assert (await front.http.get("/api/calls", headers={"host": host})).status_code in (400, 421)
        answer = await front.http.get("/api/calls", headers={"origin": f"http://{front.loom.ui}"})
        assert (answer.status_code, len(answer.json()["calls"])) == (200, 1)
        assert "access-control-allow-origin" not in answer.headers


async def test_13_and_14_it_listens_on_loopback_and_starts_with_the_backend_down_and_finds_it_when_it_comes() -> None:
    flags = inspect.signature(flags_of_loom).parameters
    assert {flags[name].default.rpartition(":")[0] for name in ("listen", "ui")} == {"127.0.0.1"}
    async with scripted(Peer.end) as port:
        pass  # a port that was free a moment ago
    async with process(port, "--listen", ":0", "--ui", ":0") as running, probing(running) as http:
        listening = [
            each.laddr.ip
            for each in psutil.Process(running.process.pid).net_connections()
            if each.status == psutil.CONN_LISTEN
        ]
        assert listening == ["127.0.0.1", "127.0.0.1"]
        live, ready, health = [await http.get(path) for path in ("/live", "/ready", "/health")]
        assert (live.status_code, live.json()["status"]) == (200, "alive")
        assert live.json()["uptime"] >= 0
        assert ready.status_code == 503
        assert "refused" in ready.json()["error"]
        assert (health.status_code, health.json()["status"], health.json()["backend"]) == (
            503,
            "degraded",
            "unreachable",
        )
        async with grpc.aio.insecure_channel(running.target) as channel:
            unary = channel.unary_unary("/test.Interop/Unary")
            assert await unary(b"ask", timeout=WAIT_S).code() is grpc.StatusCode.UNAVAILABLE
            async with serving(Backend(), port=port):
                assert await unary(b"ask", timeout=WAIT_S, wait_for_ready=True) == b"ask"
                await eventually(lambda: answers(http, "/ready", ""))
                assert (await http.get("/health")).json()["backend"] == "connected"
        assert await running.end() == 0


async def test_14_sigterm_cuts_no_stream() -> None:
    async with (
        serving(Backend()) as (_, port),
        process(port) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stream = channel.stream_stream("/test.Interop/Bidi")()
        await stream.write(b"sizes 3")
        assert await stream.read() == b"rrr"
        ending = asyncio.create_task(running.end())
        await eventually(lambda: refuses(int(running.target.rpartition(":")[2])))
        await stream.write(b"sizes 2")
        assert await stream.read() == b"rr"
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        assert await ending == 0


async def test_15_streams_at_once_are_each_recorded_in_their_order_while_they_are_looked_at(rules: Path | None) -> None:
    """What is shown is decoded in another thread, while messages are still being added."""
    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        looking = asyncio.create_task(look_again_and_again(front))

        async def talk(number: int) -> None:
            call = front.channel.stream_stream("/test.Interop/Bidi")(metadata=(("x-number", str(number)),))
            for place in range(MESSAGES):
                await call.write(b"sizes %d" % (number * 100 + place))
                assert len(await call.read()) == number * 100 + place
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK

        async with asyncio.TaskGroup() as streams:
            for number in range(STREAMS):
                streams.create_task(talk(number))
        rows = await front.ended(STREAMS)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        assert looking.cancelled()
        numbers = set()
        for row in rows:
            told = await front.get(f"/api/calls/{row['id']}")
            number = int(dict(told["metadata"])["x-number"])
            numbers.add(number)
            sizes = [number * 100 + place for place in range(MESSAGES)]
            assert [each["size"] for each in told["messages"] if each["direction"] == "response"] == sizes
            asked = [each["raw"] for each in told["messages"] if each["direction"] == "request"]
            assert asked == [(b"sizes %d" % size).hex() for size in sizes]
            assert (told["statusName"], told["messagesLeftOut"]) == ("OK", 0)
        assert len(numbers) == STREAMS


async def look_again_and_again(front: Front) -> None:
    """As a page does that follows. Fails where anything is not shown."""
    while True:
        for row in (await front.get("/api/calls"))["calls"][:5]:
            await front.get(f"/api/calls/{row['id']}")
        assert (await front.http.get("/api/export")).status_code == 200


async def test_16_tls_with_the_backend_is_used_where_the_file_says_so(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    file = tmp_path / "some.toml"
    file.write_text(f'backend-tls = true\nbackend-tls-ca = "{tmp_path}/ca.pem"\n')
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Backend(),))
    pair = issued.private_key_pem.bytes(), b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    async with process(port, "--config", str(file)) as running:
        async with grpc.aio.insecure_channel(running.target) as channel:
            assert await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
        assert await running.end() == 0
    await server.stop(0)


async def test_17_paths_that_no_backend_knows_add_no_label(rules: Path | None) -> None:
    async with serving(Backend()) as (_, port), fronted(port, rules) as front:
        assert await front.channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S) == b"ask"
        assert await bogus(front, 0).code() is grpc.StatusCode.UNIMPLEMENTED
        before = names(await front.metrics())
        for number in range(1, 200):
            assert await bogus(front, number).code() is grpc.StatusCode.UNIMPLEMENTED
        await front.ended(201)
        metrics = await front.metrics()
        assert names(metrics) == before
        assert "bogus" not in metrics
        assert 'loom_proxy_requests_total{method="other",status="UNIMPLEMENTED"} 200.0' in metrics


def bogus(front: Front, number: int) -> Any:
    return front.channel.unary_unary(f"/bogus.Service{number}/Method{number}")(b"ask", timeout=WAIT_S)


def names(metrics: str) -> set[str]:
    """Every series."""
    return {line.rpartition(" ")[0] for line in metrics.splitlines() if not line.startswith("#")}


async def test_18_one_client_connection_is_one_backend_connection_however_many_calls_it_makes(through: Way) -> None:
    unary = through.channel.unary_unary("/test.Interop/Unary")
    for number in range(300):
        assert await unary(b"%d" % number, timeout=WAIT_S) == b"%d" % number
    assert len(through.behind.connections) == 1
    assert through.account.counts["connected"] == 1


async def test_18_a_backend_connection_ends_with_its_client(rules: Path | None) -> None:
    live = most = 0

    async def script(peer: Peer) -> None:
        nonlocal live, most
        live += 1
        most = max(most, live)
        try:
            await peer.end()
        finally:
            live -= 1

    async with scripted(script) as port, fronted(port, rules) as front:
        for _ in range(10):
            async with grpc.aio.insecure_channel(front.target, options=ALONE) as channel:
                await channel.channel_ready()
        assert most >= 1

        async def all_are_gone() -> bool:
            return live == 0 and "loom_connections 0.0" in await front.metrics()

        await eventually(all_are_gone)
