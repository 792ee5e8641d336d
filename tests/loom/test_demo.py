"""`loom --demo`: without anything else there is all to see that Loom shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest

from app.loom.bootstrap import Config, HostPort, running
from app.loom.call import Ending, Status, StreamKind
from app.loom.demo.backend import SERVICE, Shop, serving
from app.loom.demo.traffic import HERD, one_round
from tests.loom.account import WAIT_S, eventually
from tests.loom.test_command import loom, probing

ANYWHERE = HostPort("127.0.0.1", 0)


async def test_a_round_has_all_kinds_of_calls_and_of_ends_and_a_stampede_with_the_names_of_their_fields(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Far apart, and whoever is late on a busy machine takes no deadline for a cancel.
    monkeypatch.setattr("app.loom.demo.traffic.IMPATIENT_S", 1.5)
    monkeypatch.setattr("app.loom.demo.backend.REPORT_S", 3.0)
    monkeypatch.setattr("app.loom.proxy.status.SLACK_S", 1.5)
    shop = Shop.load()
    async with (
        serving(shop) as port,
        running(Config(ANYWHERE, HostPort("127.0.0.1", port), ANYWHERE, stop_s=WAIT_S)) as made,
    ):
        async with grpc.aio.insecure_channel(str(made.listen)) as channel:
            await one_round(channel, shop)
        records = made.capture.ring.newest_first()
        schema = await made.capture.schemas.schema()
    assert schema is not None
    assert schema.method(f"/{SERVICE}/Chat") is not None
    assert {made.capture.kind(record) for record in records} == set(StreamKind)
    statuses = Counter(record.status for record in records)
    assert statuses[Status.OK] == HERD + 5
    assert set(statuses) == {
        Status.OK, Status.NOT_FOUND, Status.INVALID_ARGUMENT, Status.RESOURCE_EXHAUSTED, Status.UNAVAILABLE,
        Status.CANCELLED, Status.DEADLINE_EXCEEDED,
    }  # fmt: skip
    ends = {record.ended.ending for record in records if record.ended is not None}
    assert {Ending.TRAILERS, Ending.TRAILERS_ONLY, Ending.RESET_BY_CLIENT} <= ends
    herds = {record.herd.calls for record in records if record.herd is not None}
    assert max(herds) > 1
    trailers = [name for record in records if record.ended is not None for name, _ in record.ended.trailers]
    assert trailers.count(b"grpc-status-details-bin") >= 3


async def test_the_command_needs_nothing_else_and_sends_until_it_is_stopped() -> None:
    async with loom(1, "--demo") as running_loom, probing(running_loom) as http:

        async def sees_the_end_of_a_round(http: httpx.AsyncClient = http) -> bool:
            return f"{SERVICE}/MakeReport" in (await http.get("/api/calls")).text

        await eventually(sees_the_end_of_a_round)
        assert (await http.get("/ready")).status_code == 200
        assert await running_loom.end() == 0


async def test_a_rule_that_aborts_some_calls_keeps_no_client_from_the_others(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text(
        '[{"method": "*/Order", "abort": {"status": "ABORTED"}}, {"method": "*/Chat", "abort": {"status": "ABORTED"}}]'
    )
    async with loom(1, "--demo", "--mutate", str(rules)) as running_loom, probing(running_loom) as http:

        async def sees_the_end_of_a_round() -> bool:
            found = {each["method"]: each for each in (await http.get("/api/methods")).json()["methods"]}
            chats = found.get(f"/{SERVICE}/Chat", {"statuses": {}})["statuses"]
            return "ABORTED" in chats and f"/{SERVICE}/MakeReport" in found

        await eventually(sees_the_end_of_a_round)
        assert await running_loom.end() == 0
