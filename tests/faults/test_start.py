"""What a start that cannot succeed says, and eight starts at once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.stack import EmbeddedStack
from tests.faults.commands import ROOT, Command
from tests.faults.conftest import Run, Serve
from tests.faults.polling import until

PASSWORD = "s3cr3t-w0rd"
GIVEN_UP_S = 8.0
"""Far more than the second that a start gets here, and less than what it gets where it is not told."""


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def failed_in_one_line(command: Command, *words: str, status: int = 1) -> None:
    """It ended with the status, one line says why with these words in it, and nothing says more than it should."""
    assert command.wait() == status, command.stderr
    (complaint,) = command.complaints()
    for word in words:
        assert word in complaint
    assert command.stderr.endswith(complaint + "\n")
    said = command.stdout + command.stderr
    assert "Traceback" not in said
    assert PASSWORD not in said
    assert command.stdout == ""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_port_in_use_is_named(run: Run, database_url: str, redis_url: str, taken_port: int, protocol: str) -> None:
    ports = {"http_port": 0, "grpc_port": 0, f"{protocol}_port": taken_port}
    command = run("serve", database_url=database_url, redis_url=redis_url, **ports)
    name = {"http": "HTTP", "grpc": "gRPC"}[protocol]
    failed_in_one_line(command, f"{name} can't listen on 127.0.0.1:{taken_port}", "in use")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_an_address_that_is_not_this_machines_is_named(
    run: Run, database_url: str, redis_url: str, protocol: str
) -> None:
    hosts = {f"{protocol}_host": "192.0.2.1", "http_port": 0, "grpc_port": 0}
    failed_in_one_line(run("serve", database_url=database_url, redis_url=redis_url, **hosts), "192.0.2.1")


def test_a_tls_file_that_cannot_be_used_is_named(run: Run, database_url: str, redis_url: str, tmp_path: Path) -> None:
    files = {"grpc_tls_cert_file": tmp_path / "nix.pem", "grpc_tls_key_file": tmp_path / "nix.key"}
    command = run("serve", database_url=database_url, redis_url=redis_url, http_port=0, grpc_port=0, **files)
    failed_in_one_line(command, f"{tmp_path}/nix.pem can't be read: No such file or directory")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_every_bad_setting_is_named_in_one_line(run: Run, command: str) -> None:
    url = f"mysql://app:{PASSWORD}@127.0.0.1/app"
    failed = run(command, mode="bogus", http_port=70_000, cache_ttl_s="nan", database_url=url)
    failed_in_one_line(failed, "APP_MODE", "APP_HTTP_PORT", "APP_CACHE_TTL_S", "APP_DATABASE_URL", status=2)


async def test_a_variable_that_is_no_setting_is_warned_of_with_the_nearest_one_and_it_serves_all_the_same(
    run: Run, database_url: str, redis_url: str
) -> None:
    command = run(
        "serve", "--json", database_url=database_url, redis_url=redis_url, cach_ttl_s=5, http_port=0, grpc_port=0
    )
    await until(lambda: command.stdout.endswith("\n"), "it serves", 60)
    assert "APP_CACH_TTL_S is no setting; did you mean APP_CACHE_TTL_S?" in command.stderr
    command.process.terminate()
    assert command.wait() == 0


async def tried(listener: socket.socket) -> socket.socket:
    """The first connection that comes: from now on the time runs that a start gets."""
    listener.settimeout(60)
    connection, _ = await asyncio.to_thread(listener.accept)
    return connection


async def given_up(command: Command) -> float:
    return await until(lambda: not command.is_running, "it ends", 60)


@pytest.mark.parametrize("what", ["serve", "migrate"])
async def test_serving_or_migrating_without_a_database_says_so_in_time(run: Run, what: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/app"
        command = run(what, database_url=url, http_port=0, grpc_port=0, database_start_timeout_s=0.5)
        (await tried(listener)).close()
    assert await given_up(command) < GIVEN_UP_S
    failed_in_one_line(command, f"127.0.0.1:{port}/app", "cannot be reached")


async def test_a_database_that_accepts_and_never_answers_is_given_up_in_time(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"postgresql://app:{PASSWORD}@127.0.0.1:{port}/app"
        settings = {"database_connect_timeout_s": 0.3, "database_start_timeout_s": 1}
        command = run("serve", database_url=url, http_port=0, grpc_port=0, **settings)
        with await tried(listener):
            assert await given_up(command) < GIVEN_UP_S
    failed_in_one_line(command, f"127.0.0.1:{port}/app", "cannot be reached")


@pytest.mark.parametrize(
    ("role", "database", "words"),
    [
        ("app", "missing", ['database "missing" does not exist']),
        ("nobody_we_know", "app", ['role "nobody_we_know" does not exist']),
    ],
)
def test_a_database_that_refuses_us_says_why_at_once(
    run: Run, stack: EmbeddedStack, role: str, database: str, words: list[str]
) -> None:
    url = f"postgresql://{role}:{PASSWORD}@127.0.0.1:{stack.postgres.port}/{database}"
    failed_in_one_line(run("serve", database_url=url, http_port=0, grpc_port=0), *words)


def test_a_wrong_password_is_told_and_not_shown(run: Run, own_postgres: Callable[..., EmbeddedPostgres]) -> None:
    postgres = own_postgres()
    postgres.sql("ALTER ROLE app PASSWORD 'the right one'")
    rules = "('host all app 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust')"
    postgres.sql(f"COPY (VALUES {rules}) TO PROGRAM 'cat > pg_hba.conf'; SELECT pg_reload_conf()")
    url = f"postgresql://app:{PASSWORD}@127.0.0.1:{postgres.port}/app"
    failed_in_one_line(run("serve", database_url=url, http_port=0, grpc_port=0), "password authentication failed")


def test_a_database_that_another_release_has_migrated_is_left_alone(
    run: Run, stack: EmbeddedStack, fresh_database: Callable[[], str], redis_url: str
) -> None:
    url = fresh_database()
    stack.postgres.sql(
        "INSERT INTO schema_migrations (name, checksum) VALUES ('999_future.sql', 'x')", database=url.rpartition("/")[2]
    )
    command = run("serve", database_url=url, redis_url=redis_url, http_port=0, grpc_port=0)
    failed_in_one_line(command, "999_future.sql was applied to this database, but there is no such file")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_start_that_waits_for_the_database_ends_when_it_is_told_to(
    run: Run, taken_port: int, number: signal.Signals
) -> None:
    url = f"postgresql://app@127.0.0.1:{taken_port}/app"
    settings = {"database_connect_timeout_s": 0.2, "database_start_timeout_s": 300}
    command = run("serve", database_url=url, http_port=0, grpc_port=0, **settings)
    await until(lambda: "waiting for PostgreSQL" in command.stderr, "it waits", 60)
    os.kill(command.process.pid, number)
    await until(lambda: not command.is_running, "it ends", 60)
    assert command.process.returncode == 0
    assert "Traceback" not in command.stderr


async def test_ctrl_c_before_it_has_begun_prints_no_traceback(run: Run, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import pathlib, time\npathlib.Path('imports').touch()\ntime.sleep(60)\n")
    command = run("serve", environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    await until((command.folder / "imports").exists, "it imports", 60)
    command.interrupt()
    assert command.wait() == 130
    assert command.stderr == ""


def test_an_interrupt_inside_what_an_import_evaluates_ends_with_the_same_status(run: Run, tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("exec('raise KeyboardInterrupt')")
    command = run("serve", environment={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert command.wait() == 130
    assert command.stderr == ""


@pytest.mark.slow
def test_eight_replicas_that_start_at_once_on_an_empty_database_all_come_up_and_it_is_migrated_once(
    serve: Serve, empty_database: Callable[[], str], stack: EmbeddedStack, redis_url: str, tmp_path: Path
) -> None:
    url = empty_database()
    with ThreadPoolExecutor(8) as threads:
        replicas = list(threads.map(lambda _: serve(url, redis_url, database_start_timeout_s=30), range(8)))
    for replica in replicas:
        assert httpx.get(f"{replica.http_url}/template-details?id=1000", timeout=5).status_code == 200
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda replica: replica.stop(), replicas)) == [0] * 8
    name = url.rpartition("/")[2]
    names = stack.postgres.sql("SELECT name FROM schema_migrations ORDER BY name", database=name)
    assert names.split() == ["001_init.sql", "002_changes.sql", "003_write_requests.sql"]
    assert stack.postgres.sql("SELECT count(*) FROM templates", database=name) == "1000"
    logs = [log.read_text() for log in tmp_path.glob("replica-*.log")]
    assert (len(logs), sum("applied 001_init.sql" in log for log in logs)) == (8, 1)
