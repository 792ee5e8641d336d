"""The command is run by a real shell with a real grpcurl: the server gets what was recorded, and no more happens."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

from app.loom.bootstrap import Config, HostPort, running
from app.loom.call import Headers
from app.loom.demo.backend import SERVICE as SHOP
from app.loom.demo.backend import Shop
from app.loom.demo.backend import serving as shop_serving
from app.loom.grpcurl import Target, command, variable
from app.loom.proxy import tls
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


@pytest.mark.parametrize("mutual", [False, True])
async def test_over_tls_the_command_trusts_the_certificate_by_the_name_that_the_client_has_verified(
    mutual: bool, tmp_path: Path
) -> None:
    authority = trustme.CA()
    names = {name: tmp_path / f"{name}.pem" for name in ("ca", "cert", "key")}
    issued = authority.issue_cert("shop.test")
    authority.cert_pem.write_to_path(str(names["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(names["cert"]))
    issued.private_key_pem.write_to_path(str(names["key"]))
    front = tls.for_clients(names["cert"], names["key"], client_authority=names["ca"] if mutual else None)
    anywhere = HostPort("127.0.0.1", 0)
    shop = Shop.load()
    async with shop_serving(shop) as port:
        config = Config(
            anywhere, HostPort("127.0.0.1", port), anywhere,
            listen_tls=front, listen_certificate=names["cert"], stop_s=1,
        )  # fmt: skip
        pems = [names[name].read_bytes() for name in ("ca", "key", "cert")]
        credentials = grpc.ssl_channel_credentials(*pems if mutual else pems[:1])
        options = [("grpc.ssl_target_name_override", "shop.test"), ("grpc.default_authority", "shop.test:443")]
        async with (
            running(config) as loom,
            grpc.aio.secure_channel(str(loom.listen), credentials, options) as channel,
            httpx.AsyncClient(base_url=f"http://{loom.ui}", timeout=30) as http,
        ):
            await loom.capture.schemas.schema()
            counts = (shop.message("Count", sku="tea-1", counted=number) for number in (3, 4))
            await shop.call(channel, "TakeStock")(counts, timeout=30)
            (row,) = (await http.get("/api/calls")).json()["calls"]
            line = (await http.get(f"/api/calls/{row['id']}")).json()["grpcurl"]
            variables = {"LOOM_CERT": str(names["cert"]), "LOOM_KEY": str(names["key"])} if mutual else {}
            assert json.loads(await run(line, tmp_path, **variables)) == {"items": 2, "total": 7}
            made = [each.method for each in (record.started for record in loom.capture.ring.newest_first())]
            assert made.count(f"/{SHOP}/TakeStock") == 2


def test_tls_and_authority_are_flags() -> None:
    line = command("/a.S/M", [], (), Target("h:1", tls=True, ca_file="my ca.pem", authority="other"))
    assert "-plaintext" not in line
    assert "-cacert 'my ca.pem'" in line
    assert "-authority other" in line
    assert "-insecure" in command("/a.S/M", [], (), Target("h:1", tls=True, skip_verify=True))
    assert "-authority" not in command("/a.S/M", [], (), Target("h:1", authority="h:1"))
    assert variable(b"x--key.") == "LOOM_X_KEY"
