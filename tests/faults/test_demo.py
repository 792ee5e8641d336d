"""`python -m app demo`, as `make demo` runs it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from app.cli.first_calls import HERD
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.faults.conftest import Run
from tests.faults.polling import until
from tests.live.events import listening

FIGURES = {
    "mode": str,
    "requests": int,
    "errors": int,
    "hit_ratio": float,
    "db_loads": int,
    "db_loads_by_postgres": int,
    "least_loads": int,
    "shared": int,
    "rps": float,
    "p50_ms": float,
    "p95_ms": float,
    "p99_ms": float,
    "max_ms": float,
}
DEMO_S = 90.0
PATIENT: dict[str, object] = {
    "bulkhead_timeout_s": 30,
    "load_deadline_s": 30,
    "database_connect_timeout_s": 30,
    "database_acquire_timeout_s": 30,
    "redis_timeout_s": 5,
}
"""Settings with which a busy machine costs the demo's apps no answer and no load."""


@pytest.mark.slow
async def test_run_once_it_shows_the_stampede_and_its_cure_and_leaves_nothing_but_its_reports(run: Run) -> None:
    command = run("demo", environment={"DEMO_ONCE": "1"}, **PATIENT)
    await until(lambda: not command.is_running, "the demo ends", DEMO_S)
    assert command.process.returncode == 0, command.stderr
    assert command.stderr == ""
    await until(lambda: not command.processes(), "no process is left")
    assert command.temp_files() == []
    assert sorted(path.name for path in (command.folder / "out").iterdir()) == ["demo.html", "demo.json"]

    document: dict[str, Any] = json.loads((command.folder / "out/demo.json").read_text())
    assert list(document) == ["runs"]
    before, after = document["runs"]
    for figures in (before, after):
        assert {name: type(value) for name, value in figures.items()} == FIGURES
        assert figures["requests"] == 7_500
        assert figures["errors"] == 0
        assert figures["db_loads"] == figures["db_loads_by_postgres"]
        assert figures["least_loads"] == 220
        assert figures["p50_ms"] <= figures["p95_ms"] <= figures["p99_ms"] <= figures["max_ms"]
    assert (before["mode"], after["mode"]) == ("none", "full")
    assert after["db_loads"] == after["least_loads"]
    assert after["shared"] > 0
    assert before["shared"] == 0
    # Each of the 25 waves of 200 loads nearly as often as it has callers: all who come before the first load's end.
    assert before["db_loads"] > 10 * after["db_loads"]

    table = command.stdout
    for label in ("none", "full", "Requests", "Errors", "Hit rate", "Database loads", "Least possible loads"):
        assert label in table
    assert f"{before['db_loads']:,}" in table
    assert f"{after['db_loads']:,}" in table
    self_contained(command.folder / "out/demo.html")


def self_contained(page: Path) -> None:
    """Nothing in it is fetched from anywhere; the names of XML vocabularies are no addresses."""
    text = page.read_text()
    assert "<svg" in text
    addresses = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+[^\s\"'<>)]*", text))
    assert not [one for one in addresses if "//www.w3.org/" not in one and "//127.0.0.1:" not in one]
    assert not re.findall(r"<(?:script|link|img|iframe|object|embed)\b[^>]*(?:src|href)\s*=", text)
    assert not re.findall(r"@import|url\((?!#)", text)


@pytest.mark.slow
async def test_when_the_figures_are_printed_it_stays_up_with_loom_in_front_of_the_protected_app(run: Run) -> None:
    command = run("demo", **PATIENT)
    stack_file = command.folder / "out/stack.json"
    await until(lambda: "Ctrl-C ends it all" in command.stdout or not command.is_running, "it stays up", DEMO_S)
    assert command.is_running, command.stderr
    said = json.loads(stack_file.read_text())
    assert f"{said['loom_url']} shows the gRPC calls that come by way of {said['loom_target']}" in command.stdout
    async with grpc.aio.insecure_channel(said["loom_target"]) as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        assert (await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=2), timeout=5)).template.id == 2
    async with httpx.AsyncClient(base_url=said["loom_url"], timeout=5) as client:
        rows = (await client.get("/api/calls")).json()["calls"]
    assert rows[0]["method"] == "/template.v1.TemplateService/GetTemplateDetails"
    found = Counter(row["statusName"] for row in rows[1:])  # those that it made itself
    assert (found["OK"], found["NOT_FOUND"], found["CANCELLED"]) == (HERD + 1, 1, 1)
    assert max(row["duplicates"]["calls"] for row in rows if "duplicates" in row) > 1
    assert f"live page   {said['http_url']}/" in command.stdout
    async with httpx.AsyncClient(base_url=said["http_url"], timeout=60) as client:
        async with listening(f"{said['http_url']}/events") as events:
            assert [each["name"] for each in (await events.next("hello"))["reports"]] == ["demo"]
            apps = (await events.next("sample"))["apps"]
            while "app-unprotected" not in apps:
                apps = (await events.next("sample"))["apps"]
            assert (apps["app"]["mode"], apps["app-unprotected"]["mode"]) == ("full", "none")
            fired = await client.post("/actions/stampede", json={"callers": 50})
            assert "app loaded it once" in fired.json()["done"]
            drawn = [await events.next("stampede") for _ in range(2)]
            assert {each["app"] for each in drawn} == {"app", "app-unprotected"}
        assert (await client.get("/reports/demo.html")).content == (command.folder / "out/demo.html").read_bytes()
    command.interrupt()
    await until(lambda: not command.is_running, "it ends", 15)
    assert command.process.returncode == 0
    await until(lambda: not command.processes(), "no process is left", 15)
    assert command.temp_files() == []
    assert not stack_file.exists()


@pytest.mark.slow
async def test_ctrl_c_in_the_middle_of_it_leaves_nothing(run: Run) -> None:
    command = run("demo")
    await until(lambda: "protection none" in command.stdout and command.runs("serve"), "the load runs", 40)
    command.interrupt()
    await until(lambda: not command.is_running, "it ends", 15)
    assert command.process.returncode == 130
    await until(lambda: not command.processes(), "no process is left", 15)
    assert command.temp_files() == []
    assert list(command.folder.rglob("*.json")) == []
    assert "Traceback" not in command.stdout + command.stderr


@pytest.mark.slow
async def test_a_mode_that_does_not_exist_is_named_in_one_line(run: Run) -> None:
    command = run("demo", mode="bogus")
    await until(lambda: not command.is_running, "it ends", 15)
    assert command.process.returncode == 2
    (complaint,) = command.complaints()
    assert "APP_MODE" in complaint
    assert command.temp_files() == []
