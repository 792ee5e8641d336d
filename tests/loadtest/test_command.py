from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.loadtest import loadtest
from app.loadtest.result import RunResult
from tests.loadtest.fake_app import FakeApp
from tests.loadtest.fake_grpc import over_grpc

SMALL = ["--concurrency", "10", "--waves", "2", "--ids", "5", "--spread", "30", "--no-postgres", "--keep-caches"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LOADTEST_URL", "LOADTEST_DATABASE_URL", "APP_DATABASE_URL", "APP_REDIS_URL", "APP_CACHE_KEY_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)  # where no stack.json is


async def command(*flags: str) -> Result:
    """The command in a thread, so that the fake app can answer it."""
    app = typer.Typer()
    app.command()(loadtest)
    return await asyncio.to_thread(CliRunner().invoke, app, list(flags))


async def test_a_good_run_exits_0_with_the_table_and_writes_json_and_html(tmp_path: Path) -> None:
    async with FakeApp() as app:
        flags = ["--url", app.target.url, "--json", "new/run.json", "--html", "new/run.html"]
        result = await command(*SMALL, *flags)
    assert result.exit_code == 0, result.output
    run = json.loads((tmp_path / "new" / "run.json").read_text())
    assert (run["mode"], run["requests"], run["errors"]) == ("singleflight", 50, 0)
    assert (run["db_loads"], run["db_loads_by_postgres"], run["least_loads"]) == (5, None, 5)
    for label in ("Requests", "Errors", "Hit rate", "Database loads", "Least possible loads", "Shared calls", "p99"):
        assert re.search(rf"^ *{label}\b", result.stdout, re.MULTILINE), label
    assert "./loadtest.sh --concurrency 10" in (tmp_path / "new" / "run.html").read_text()


async def test_failed_requests_exit_1_and_the_figures_are_written_all_the_same(tmp_path: Path) -> None:
    async with FakeApp(faults={7: "refuse"}) as app:
        result = await command(*SMALL, "--url", app.target.url, "--json", "run.json")
    assert result.exit_code == 1
    assert "1 of 50 requests failed: 1 × status 503" in result.stderr
    assert json.loads((tmp_path / "run.json").read_text())["errors"] == 1


async def test_over_grpc_the_table_and_the_json_are_the_same(tmp_path: Path) -> None:
    async with FakeApp() as app, over_grpc(app) as (target, service):
        # In a process of its own: two event loops in one would share gRPC's.
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "loadtest", "--grpc", target.grpc_target or "", *SMALL, "--url", target.url,
            "--json", "run.json", "--html", "run.html",
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), 60)
        assert service.calls == 50
    assert (process.returncode, errors) == (0, b"")
    assert f"against gRPC at {target.grpc_target}" in out.decode()
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["requests"], run["errors"], run["db_loads"], run["least_loads"]) == (50, 0, 5, 5)
    assert set(run) == {field.name for field in fields(RunResult)}
    assert f"--grpc {target.grpc_target}" in (tmp_path / "run.html").read_text()


async def test_quiet_says_nothing_of_a_good_run() -> None:
    async with FakeApp() as app:
        result = await command(*SMALL, "--url", app.target.url, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--waves", "0"], "--waves must be from 1"),
        (["--concurrency", "-3"], "--concurrency must be from 1"),
        (["--ids", "3", "--waves", "4"], "--ids must be at least --waves"),
        (["--url", "ftp://h"], "--url must begin with http://"),
        (["--url", "http://127.0.0.1:1"], "no app answers at http://127.0.0.1:1"),
        (["--duration", "nan"], "--duration must be above 0"),
        (["localhost:50051"], "localhost:50051 goes with --grpc only"),
        (["--grpc", "localhost"], "--grpc: the target must be HOST:PORT"),
    ],
)
async def test_what_cannot_be_run_exits_2_with_one_line(flags: list[str], words: str) -> None:
    result = await command(*flags)
    assert result.exit_code == 2
    assert result.stderr.startswith("loadtest: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


async def test_an_unreachable_database_exits_2_and_names_the_way_out() -> None:
    async with FakeApp() as app:
        result = await command("--url", app.target.url, "--database-url", "postgresql://me:secret@127.0.0.1:1/app")
        assert app.requests == 0
    assert result.exit_code == 2
    assert "--no-postgres" in result.stderr
    assert "secret" not in result.output


async def test_a_file_that_cannot_be_written_exits_2_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    async with FakeApp() as app:
        result = await command(*SMALL, "--url", app.target.url, "--json", "taken/run.json")
    assert result.exit_code == 2
    assert "cannot write taken/run.json" in result.stderr


async def test_the_environment_says_where_the_app_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeApp() as app:
        monkeypatch.setenv("LOADTEST_URL", app.target.url)
        assert (await command(*SMALL)).exit_code == 0
        assert app.requests == 50


async def test_a_running_stacks_file_says_where_the_app_is(tmp_path: Path) -> None:
    async with FakeApp() as app:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "stack.json").write_text(json.dumps({"pid": os.getpid(), "http_url": app.target.url}))
        assert (await command(*SMALL)).exit_code == 0
        assert app.requests == 50


async def test_help_tells_of_every_flag() -> None:
    result = await command("--help")
    assert result.exit_code == 0
    for flag in ("concurrency", "waves", "ids", "spread", "seed", "duration", "url", "json", "html", "no-postgres"):
        assert f"--{flag}" in result.stdout


async def test_ctrl_c_exits_130_with_one_line_and_no_trace() -> None:
    program = "import typer; from app.cli.loadtest import loadtest; typer.run(loadtest)"
    async with FakeApp(crowd=1_000) as app:  # which so answers nobody
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, *SMALL, "--url", app.target.url,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await asyncio.wait_for(app.reached.wait(), 30)
        process.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, errors) == (130, b"loadtest: interrupted\n")
