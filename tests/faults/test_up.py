"""`python -m app up`: all there when it says so, and nothing left however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest, WatchTemplatesRequest
from app.proto.template.v1.template_pb2_grpc import TemplateServiceStub
from tests.faults.commands import Command
from tests.faults.conftest import Run
from tests.faults.polling import until

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--loom-port", "0", "--loom-ui-port", "0")
STARTS_S, ENDS_S = 40.0, 15.0
"""For several at once, on a busy machine."""
STACK_FILE = Path("out/stack.json")
PORTS = ("http", "grpc", "postgres", "redis", "loom", "loom_ui")


def up(run: Run, *flags: str, **settings: object) -> Command:
    return run("up", "--json", *(flags or FREE_PORTS), **{"drain_delay_s": 0, "redis_timeout_s": 5, **settings})


async def ready(command: Command) -> dict[str, Any]:
    """What it says of itself, once it does."""
    await until(lambda: command.stdout.endswith("\n") or not command.is_running, "ready", STARTS_S)
    assert command.is_running, command.stderr
    (line,) = command.stdout.splitlines()
    said: dict[str, Any] = json.loads(line)
    return said


async def nothing_is_left(command: Command, *, but_files_of_its_folder: bool = False) -> None:
    await until(lambda: not command.is_running, "it ends", ENDS_S)
    await until(lambda: not command.processes(), "no process is left", ENDS_S)
    await until(lambda: not command.temp_files(), f"no temp file is left: {command.temp_files()}", ENDS_S)
    assert but_files_of_its_folder or not (command.folder / STACK_FILE).exists()
    assert "Traceback" not in command.stderr


async def answers(said: dict[str, Any]) -> None:
    """All of them, at the addresses given; a call by way of Loom is seen there."""
    async with httpx.AsyncClient(base_url=said["http_url"], timeout=5) as client:
        assert (await client.get("/template-details?id=1")).status_code == 200
        assert (await client.get("/ready")).json()["checks"] == {"cache": "ok", "database": "ok"}
    for target in (said["grpc_target"], said["loom_target"]):
        async with grpc.aio.insecure_channel(target) as channel:
            stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
            assert (await stub.GetTemplateDetails(GetTemplateDetailsRequest(id=2), timeout=5)).template.id == 2
    async with httpx.AsyncClient(base_url=said["loom_url"], timeout=5) as client:
        assert "/template.v1.TemplateService/GetTemplateDetails" in (await client.get("/api/calls")).text
    assert [is_open(said[f"{name}_port"]) for name in PORTS] == [True] * len(PORTS)


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


async def test_two_are_all_there_when_they_say_so_and_the_end_of_one_is_not_that_of_the_other(run: Run) -> None:
    first, second = up(run), up(run)
    first_said, second_said = await ready(first), await ready(second)
    assert len({said[f"{name}_port"] for said in (first_said, second_said) for name in PORTS}) == 2 * len(PORTS)
    for command, said in ((first, first_said), (second, second_said)):
        assert said == json.loads((command.folder / STACK_FILE).read_text())
        assert said["pid"] == command.process.pid
        await answers(said)
    first.interrupt()
    await nothing_is_left(first)
    await answers(second_said)

    # Another stack has said its own in the same folder since.
    (second.folder / STACK_FILE).write_text(json.dumps({**second_said, "pid": first.process.pid}))
    second.interrupt()
    await nothing_is_left(second, but_files_of_its_folder=True)
    assert json.loads((second.folder / STACK_FILE).read_text())["pid"] == first.process.pid


WAYS: dict[str, Callable[[Command], None]] = {
    "Ctrl-C": Command.interrupt,
    "SIGTERM": lambda command: os.kill(command.process.pid, signal.SIGTERM),
    "SIGHUP": lambda command: os.kill(command.process.pid, signal.SIGHUP),
    "SIGKILL": lambda command: os.kill(command.process.pid, signal.SIGKILL),
}


@pytest.mark.slow
async def test_however_it_is_ended_it_leaves_no_process_and_no_file(run: Run) -> None:
    commands = {way: up(run) for way in WAYS if way != "Ctrl-C"}  # which the test above has tried
    addresses = {way: await ready(command) for way, command in commands.items()}
    for way, command in commands.items():
        assert len(command.processes()) > 5
        WAYS[way](command)
    for way, command in commands.items():
        await nothing_is_left(command, but_files_of_its_folder=way == "SIGKILL")
        assert command.process.returncode == {"SIGKILL": -signal.SIGKILL}.get(way, 0), way
        assert not any(is_open(addresses[way][f"{name}_port"]) for name in PORTS)


@pytest.mark.slow
async def test_told_to_end_while_it_starts_it_leaves_nothing(run: Run) -> None:
    moments: dict[str, Callable[[Command], bool]] = {
        "imports": lambda command: command.has_loaded("pydantic_core"),
        "PostgreSQL and Valkey": lambda command: "starting PostgreSQL" in command.stderr,
        "the database": lambda command: any("stampede-postgres" in name for name in command.temp_files()),
        "the app": lambda command: "starting the app" in command.stderr,
        "the app, a little later": lambda command: command.runs("serve"),
    }

    ways = ["Ctrl-C", "SIGTERM"]

    async def told(way: str, moment: str) -> None:
        command = up(run)
        await until(lambda: moments[moment](command), moment, STARTS_S)
        WAYS[way](command)
        await nothing_is_left(command)
        # Python ends by the signal itself where it was interrupted in an exec(), as imports of dataclasses are: a shell
        # says 130 to both.
        assert command.process.returncode in (130, -signal.SIGINT, -signal.SIGTERM), moment
        assert (command.stdout, command.complaints()) == ("", []), moment

    await asyncio.gather(*(told(way, moment) for way, moment in zip(cycle(ways), moments, strict=False)))


@pytest.mark.slow
async def test_what_keeps_it_from_starting_is_told_in_one_line_and_nothing_is_left(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        failing = {}
        for name in PORTS:
            taken_flag = (f"--{name.replace('_', '-')}-port", str(taken))
            failing[name] = (up(run, *FREE_PORTS, *taken_flag), str(taken))
        failing["setting"] = (up(run, cache_ttl_s="soon"), "APP_CACHE_TTL_S")
        failing["folder"] = (run("up", "--json", *FREE_PORTS, in_the_way="out"), "cannot write out/stack.json")
        for command, word in failing.values():
            await asyncio.to_thread(command.wait, 2 * STARTS_S)
            await nothing_is_left(command)
            assert command.process.returncode in (1, 2)
            (complaint,) = command.complaints()
            assert word in complaint
            assert command.stdout == ""


@pytest.mark.slow
async def test_an_impatient_second_ctrl_c_leaves_no_process_and_no_temp_file_either(run: Run) -> None:
    command = up(run, *FREE_PORTS, drain_delay_s=5)
    await ready(command)
    command.interrupt()
    await until(lambda: "stopping" in command.stderr, "it stops")
    command.interrupt()
    await nothing_is_left(command, but_files_of_its_folder=True)


@pytest.mark.slow
@pytest.mark.parametrize(("word", "name"), [("serve", "the app"), ("loom", "Loom")])
async def test_where_the_app_or_loom_ends_by_itself_it_says_so_and_ends_too(run: Run, word: str, name: str) -> None:
    command = up(run)
    await ready(command)
    for process in command.processes():
        if word in process.cmdline():
            process.kill()
    await nothing_is_left(command)
    assert command.complaints() == [f"error: {name} ended by itself, with exit status -9"]
    assert command.process.returncode == 1


@pytest.mark.slow
async def test_a_watch_by_way_of_loom_does_not_keep_it_from_ending(run: Run) -> None:
    command = up(run)
    said = await ready(command)
    async with grpc.aio.insecure_channel(said["loom_target"]) as channel:
        stub = TemplateServiceStub(channel)  # type: ignore[no-untyped-call]
        watch = stub.WatchTemplates(WatchTemplatesRequest(ids=[1]), timeout=60)
        assert (await watch.read()) is not grpc.aio.EOF
        command.interrupt()
        await nothing_is_left(command)
    assert command.process.returncode == 0
