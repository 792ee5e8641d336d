"""The command is run by a real shell with a real grpcurl: the server gets what was recorded, and no more happens."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

from app.loom.call import Headers
from app.loom.grpcurl import Target, command, variable
from app.loom.recording.redaction import PLACEHOLDER
from app.proto.template.v1 import template_pb2 as pb

SERVICE = "template.v1.TemplateService"
HOSTILE = "it's $(touch pwned) `touch pwned` \"; touch pwned; \\ %s %n é\n'\t${HOME}"


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes what comes for two methods, of one request and of a stream."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.metadata: list[tuple[str, str | bytes]] = []
        self.left_s: float | None = None

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method == f"/{SERVICE}/CreateTemplate":
            return grpc.unary_unary_rpc_method_handler(self.one)
        if details.method == f"/{SERVICE}/ImportTemplates":
            return grpc.stream_unary_rpc_method_handler(self.many)
        return None

    async def one(self, request: bytes, context: Any) -> bytes:
        self.requests.append(request)
        self.metadata = list(context.invocation_metadata())
        self.left_s = context.time_remaining()
        return b""

    async def many(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for request in requests:
            self.requests.append(request)
        return b""


@pytest.fixture
async def echo() -> AsyncIterator[tuple[Echo, str]]:
    echo, server = Echo(), grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    reflection.enable_server_reflection([SERVICE], server, descriptor_pool.Default())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield echo, f"127.0.0.1:{port}"
    await server.stop(0)


async def run(line: str, folder: Path, **variables: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", line,
        cwd=folder, env={"PATH": path, **variables}, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_a_hostile_payload_and_hostile_metadata_reach_the_server_and_no_shell(
    echo: tuple[Echo, str], tmp_path: Path
) -> None:
    server, address = echo
    headers: Headers = (
        (b":path", b"/x"), (b"te", b"trailers"), (b"grpc-timeout", b"1S"), (b"user-agent", b"me"),
        (b"x-quote", b"it's $(touch pwned) \"`touch pwned`\""), (b"x-twice", b"1"), (b"x-twice", b"2"),
        (b"x-raw-bin", b"AAEC"),
    )  # fmt: skip
    line = command(f"/{SERVICE}/CreateTemplate", [{"template": {"name": HOSTILE}}], headers, Target(address))
    await run(line, tmp_path)
    assert server.requests == [pb.CreateTemplateRequest(template=pb.NewTemplate(name=HOSTILE)).SerializeToString()]
    sent = [(name, value) for name, value in server.metadata if name.startswith("x-")]
    assert sorted(sent) == [
        ("x-quote", 'it\'s $(touch pwned) "`touch pwned`"'),
        ("x-raw-bin", b"\x00\x01\x02"),
        ("x-twice", "1"),
        ("x-twice", "2"),
    ]
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - a test's own folder


async def test_what_was_redacted_comes_from_the_shell(echo: tuple[Echo, str], tmp_path: Path) -> None:
    server, address = echo
    headers: Headers = ((b"authorization", PLACEHOLDER), (b"x-api.key", PLACEHOLDER))
    line = command(f"/{SERVICE}/CreateTemplate", [{}], headers, Target(address), timeout_s=9)
    assert '-H "authorization: $LOOM_AUTH"' in line
    await run(line, tmp_path, LOOM_AUTH="Bearer a b", LOOM_X_API_KEY="k")
    assert dict(server.metadata)["authorization"] == "Bearer a b"
    assert dict(server.metadata)["x-api.key"] == "k"
    assert (
        command("/a.S/M", [], ((b'x"$(id)', PLACEHOLDER),), Target(address))
        .split("|")[1]
        .startswith(""" grpcurl -plaintext -H 'x"$(id): '"$LOOM_X_ID" """)
    )
    assert server.left_s is not None
    assert server.left_s <= 9


async def test_several_messages_and_none_are_sent_as_they_were(echo: tuple[Echo, str], tmp_path: Path) -> None:
    server, address = echo
    messages = [{"templates": [{"name": str(number)}]} for number in range(3)]
    await run(command(f"/{SERVICE}/ImportTemplates", messages, (), Target(address)), tmp_path)
    names = [pb.ImportTemplatesRequest.FromString(request).templates[0].name for request in server.requests]
    assert names == ["0", "1", "2"]
    server.requests.clear()
    await run(command(f"/{SERVICE}/ImportTemplates", [], (), Target(address)), tmp_path)
    assert server.requests == []


def test_tls_and_authority_are_flags() -> None:
    tls = command("/a.S/M", [], (), Target("h:1", tls=True, ca_file="my ca.pem", authority="other"))
    assert "-plaintext" not in tls
    assert "-cacert 'my ca.pem'" in tls
    assert "-authority other" in tls
    assert "-insecure" in command("/a.S/M", [], (), Target("h:1", tls=True, skip_verify=True))
    assert "-authority" not in command("/a.S/M", [], (), Target("h:1", authority="h:1"))
    assert variable(b"x--key.") == "LOOM_X_KEY"
