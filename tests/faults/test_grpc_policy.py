"""What a replica asks of gRPC callers, set by its environment: seen from outside, and in its log."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, ResourceInfo, RetryInfo

from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from tests.api.grpc.interceptors.rig import told
from tests.api.grpc.test_statuses import details
from tests.faults.conftest import Serve
from tests.faults.metrics import scrape

METHOD = "template.v1.TemplateService/GetTemplateDetails"
TOKEN = "web-0123456789abcdef"
BEARER = ("authorization", f"Bearer {TOKEN}")
BURST = 5
GRPCURL = Path(sys.executable).with_name("grpcurl")


async def _get(channel: grpc.aio.Channel, template_id: int, *metadata: tuple[str, str]) -> grpc.aio.AioRpcError | None:
    """How the call failed, if it did."""
    try:
        await channel.unary_unary(f"/{METHOD}")(
            GetTemplateDetailsRequest(id=template_id).SerializeToString(), metadata=metadata, timeout=10
        )
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def test_tokens_rate_limit_and_access_log_are_set_by_the_environment(
    serve: Serve, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    replica = serve(
        database_url,
        redis_url,
        grpc_tokens=f"web:{TOKEN},ci:ci-0123456789abcdef",
        grpc_rate_limit_per_s=0.01,
        grpc_rate_burst=BURST,
        grpc_access_log="all",
    )
    async with grpc.aio.insecure_channel(replica.grpc_target) as channel:
        refused = await _get(channel, 1, ("x-request-id", "refused.1"))
        assert refused is not None
        assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
        missing = await _get(channel, 10**15, BEARER, ("x-request-id", "missing.1"))
        assert missing is not None
        assert missing.code() is grpc.StatusCode.NOT_FOUND
        assert [type(detail) for detail in details(told(missing))] == [ErrorInfo, ResourceInfo]
        rest = [await _get(channel, 1, BEARER) for _ in range(BURST)]
        assert [error is None for error in rest] == [True] * (BURST - 1) + [False]
        assert rest[-1] is not None
        assert rest[-1].code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [type(detail) for detail in details(told(rest[-1]))] == [ErrorInfo, RetryInfo]
        assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) is not None

    scraped = await scrape(replica.http_url)
    for status, calls in (("UNAUTHENTICATED", 1), ("NOT_FOUND", 1), ("OK", BURST - 1), ("RESOURCE_EXHAUSTED", 1)):
        assert scraped("grpc_requests_total", method=METHOD, status=status) == calls
    assert scraped("grpc_refusals_total", why="rate_limited") == 1
    assert scraped("grpc_refusals_total", why="unauthenticated") == 1

    lines = (tmp_path / "replica-1.log").read_text().splitlines()
    [line] = [line for line in lines if "missing.1" in line]
    assert f" method={METHOD} kind=unary peer=ipv4:127.0.0.1:" in line
    assert " client=web status=NOT_FOUND " in line
    assert line.endswith(" received=1 sent=0 request_id=missing.1")
    [line] = [line for line in lines if line.endswith(" request_id=refused.1")]
    assert " client=- status=UNAUTHENTICATED " in line
    assert sum("access_log method=" in line for line in lines) == BURST + 3
    assert TOKEN not in "\n".join(lines)


async def test_grpcurl_shows_the_details_of_an_error(serve: Serve, database_url: str, redis_url: str) -> None:
    replica = serve(database_url, redis_url)
    call = [str(GRPCURL), "-plaintext", "-d", '{"id": 0}', replica.grpc_target, METHOD]
    done = await asyncio.to_thread(subprocess.run, call, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "Code: InvalidArgument" in done.stderr
    assert '"reason":"INVALID_INPUT"' in done.stderr
    assert '"field":"id"' in done.stderr
