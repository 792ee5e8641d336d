"""`python -m app loom`: a real process with a real client and backend, its probes, its metrics, its end."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
import typer
from typer.testing import CliRunner

from app.cli.failure import CommandError
from app.cli.loom import loom as command
from tests.loom.account import WAIT_S, eventually, refuses
from tests.loom.backend import Backend
from tests.loom.conftest import serving
from tests.loom.raw import Peer, scripted

START_S = 60.0
ROOT = Path(__file__).parents[2]


@dataclass
class Running:
    """The process, and where it listens."""

    process: asyncio.subprocess.Process
    target: str
    ui: str

    async def end(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), WAIT_S)


@asynccontextmanager
async def loom(backend_port: int, *flags: str) -> AsyncIterator[Running]:
    arguments = ["--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0", "--backend", f"127.0.0.1:{backend_port}", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "loom", *arguments, *flags,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        document = json.loads(line)
        yield Running(process, document["listen"], document["ui"])
    finally:
        if process.returncode is None:
            process.kill()
        _, said = await process.communicate()
    assert b"Traceback" not in said


def probing(running: Running) -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=WAIT_S, base_url=running.ui)


async def answers(http: httpx.AsyncClient, path: str, text: str) -> bool:
    response = await http.get(path)
    return response.status_code == 200 and text in response.text


async def test_calls_pass_and_are_counted() -> None:
    async with serving(Backend()) as (_, port), loom(port) as running, probing(running) as http:
        async with grpc.aio.insecure_channel(running.target) as channel:
            assert await channel.unary_unary("/test.Interop/Unary")(b"ask") == b"ask"
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Interop/Unary")(b"ask", metadata=(("x-status", "5"),))
            call = channel.unary_unary("/test.Interop/Sleep")(b"ask")
            await eventually(lambda: answers(http, "/metrics", "loom_active_sessions 1.0"))
            call.cancel()
            await eventually(lambda: answers(http, "/metrics", "loom_active_sessions 0.0"))
            metrics = (await http.get("/metrics")).text
        assert 'loom_proxy_requests_total{method="/test.Interop/Unary",status="OK"} 1.0' in metrics
        assert 'loom_proxy_requests_total{method="/test.Interop/Unary",status="NOT_FOUND"} 1.0' in metrics
        assert 'loom_proxy_requests_total{method="other",status="CANCELLED"} 1.0' in metrics
        assert 'loom_proxy_latency_seconds_count{method="/test.Interop/Unary"} 2.0' in metrics
        assert await running.end() == 0


async def test_the_breaker_opens_after_as_many_failures_and_for_as_long_as_the_flags_say() -> None:
    async with scripted(Peer.end) as port:
        pass  # a port that was free a moment ago
    flags = ("--breaker-failures", "1", "--breaker-open-s", "1000", "--dial-timeout-s", "1")
    async with loom(port, *flags) as running, probing(running) as http:
        for why in ("Loom can't reach the backend", "Loom's circuit breaker is open"):
            async with grpc.aio.insecure_channel(running.target) as channel:
                with pytest.raises(grpc.aio.AioRpcError, match=why):
                    await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S)
        said = (await http.get("/ready")).json()["error"]
        found = re.fullmatch(r"the circuit breaker is open: it lets the next one by in ([0-9.]+) s", said)
        assert found is not None
        assert 30 < float(found[1]) <= 1000
        assert await running.end() == 0


async def test_sighup_reads_the_rules_again(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text("[]")
    async with serving(Backend()) as (_, port), loom(port, "--mutate", str(rules)) as running:
        async with grpc.aio.insecure_channel(running.target) as channel:

            async def status() -> grpc.StatusCode:
                return await channel.unary_unary("/test.Interop/Unary")(b"ask", timeout=WAIT_S).code()

            async def is_aborted() -> bool:
                return await status() is grpc.StatusCode.ABORTED

            assert await status() is grpc.StatusCode.OK
            rules.write_text('[{"method": "*", "abort": {"status": "ABORTED"}}]')
            running.process.send_signal(signal.SIGHUP)
            await eventually(is_aborted)
            rules.write_text("[")
            running.process.send_signal(signal.SIGHUP)
            for _ in range(3):
                assert await is_aborted()
        assert await running.end() == 0


async def test_a_second_sigterm_does_not_wait_for_calls() -> None:
    backend = Backend()
    async with serving(backend) as (_, port):
        async with loom(port) as running, grpc.aio.insecure_channel(running.target) as channel:
            call = channel.unary_unary("/test.Interop/Held")(b"held")
            await asyncio.wait_for(backend.arrived.wait(), WAIT_S)
            running.process.send_signal(signal.SIGTERM)
            await eventually(lambda: refuses(int(running.target.rpartition(":")[2])))
            await running.end()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        backend.go_on.set()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--listen", "nonsense"], "--listen: 'nonsense' is no address: HOST:PORT is"),
        (["--backend", "localhost:0"], "the port from 1 to 65535"),
        (["--backend", "localhost:70000"], "--backend: 'localhost:70000' is no address"),
        (["--ui", "[::1:9998"], "--ui: "),
        (["--log", "loud"], "--log: 'loud' is no level"),
        (["--tls-cert", __file__], "needs both --tls-cert and --tls-key"),
        (["--tls-cert", __file__, "--tls-key", __file__], "no certificate and its key can be read"),
        (["--backend-tls-skip-verify"], "need --backend-tls"),
        (["--backend-tls", "--backend-tls-key", __file__], "go together"),
        (["--backend-tls", "--backend-tls-ca", __file__], "no certificate can be read"),
        (["--mutate", __file__], "test_command.py:1: not JSON"),
        (["--authority", "two words"], "--authority: 'two words' is no name"),
        (["--session", "../up"], "--session: '../up' is no session's name"),
        (["--session", "v1.2"], "--session: 'v1.2' ends as the files do"),
        (["--listen", "192.0.2.1:9"], "can't listen on 192.0.2.1:9: "),
        (["--ui", "192.0.2.1:9"], "can't listen on 192.0.2.1:9: "),
        (["--listen", "no-such-host.invalid:9"], "can't listen on no-such-host.invalid:9: "),
    ],
)
def test_bad_flags_are_one_line_that_says_what_would_be_right(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.loom.logs.configure", lambda _level: None)
    program = typer.Typer()
    program.command()(command)
    free = ["--listen", "127.0.0.1:0", "--ui", "127.0.0.1:0"]
    with pytest.raises(CommandError, match=re.escape(said)) as error:
        CliRunner().invoke(program, [*free, *arguments], catch_exceptions=False)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flag", ["--listen", "--ui"])
def test_a_port_that_is_taken_is_said_in_one_line(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.loom.logs.configure", lambda _level: None)
    program = typer.Typer()
    program.command()(command)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        free = {"--listen": "127.0.0.1:0", "--ui": "127.0.0.1:0"} | {flag: address}
        with pytest.raises(CommandError) as error:
            CliRunner().invoke(program, [word for pair in free.items() for word in pair], catch_exceptions=False)
    assert (str(error.value), error.value.status) == (f"can't listen on {address}: Address already in use", 1)


def test_the_command_ends_in_one_line_and_a_status_where_a_flag_is_wrong() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "loom", "--listen", "nonsense"],
        capture_output=True, text=True, timeout=START_S, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
