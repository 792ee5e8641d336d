from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from app.embedded import process_table, server
from app.embedded.errors import EmbeddedError
from app.embedded.postgres import ROLES_SCRIPT, EmbeddedPostgres
from app.embedded.stack import EmbeddedStack

Own = Callable[..., EmbeddedPostgres]


@pytest.fixture(scope="module")
def revived() -> Iterator[EmbeddedPostgres]:
    """One server for the tests here that break it and leave it running."""
    with EmbeddedPostgres() as postgres:
        yield postgres


def home(postgres: EmbeddedPostgres) -> Path:
    return Path(postgres.sql("SHOW data_directory")).parent


def table(postgres: EmbeddedPostgres) -> None:
    postgres.sql("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n", role="app")


def processes(postgres: EmbeddedPostgres) -> list[int]:
    family = [postgres.pid, *process_table.descendants(postgres.pid)]
    return [pid for pid in family if process_table.is_running(pid)]


def watchdogs_of(owner: int) -> set[int]:
    """Among its descendants; other servers' processes come and go meanwhile."""
    found = set()
    for process in psutil.Process(owner).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "app.embedded.watchdog" in process.cmdline():
                found.add(process.pid)
    return found


def system_v_segments() -> set[str]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    return {line.split()[1] for line in lines[1:]}


def test_stop_leaves_no_process_and_no_file(own_postgres: Own) -> None:
    postgres = own_postgres()
    directory, family = home(postgres), processes(postgres)
    assert len(family) > 3

    postgres.stop()

    assert process_table.wait_ended(family, 0) == []
    assert not directory.exists()
    assert not postgres.is_running
    postgres.stop()


def test_no_watchdog_is_left_after_stop(own_postgres: Own) -> None:
    before = watchdogs_of(os.getpid())
    postgres = own_postgres()
    assert watchdogs_of(os.getpid()) > before
    postgres.stop()
    assert watchdogs_of(os.getpid()) <= before


def test_restart_keeps_port_and_data(revived: EmbeddedPostgres) -> None:
    table(revived)
    before = revived.pid, revived.port

    revived.restart()

    assert revived.pid != before[0]
    assert revived.port == before[1]
    assert revived.sql("SELECT count(*) FROM kept", role="app") == "1000"


def test_after_a_kill_start_recovers_every_commit_on_the_same_port(revived: EmbeddedPostgres) -> None:
    port, family = revived.port, processes(revived)
    table(revived)

    revived.kill()

    assert process_table.wait_ended(family, 0) == []
    with pytest.raises(EmbeddedError, match="not running"):
        _ = revived.pid
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((revived.host, port), 1)
    revived.start()
    assert revived.port == port
    assert revived.sql("SELECT count(*) FROM kept", role="app") == "1000"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux' list of shared memory")
def test_a_server_killed_and_never_started_again_leaves_no_shared_memory(own_postgres: Own) -> None:
    postgres = own_postgres()
    segment = (home(postgres) / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]
    assert segment in system_v_segments()
    postgres.kill()
    postgres.stop()
    assert segment not in system_v_segments()


def test_suspend_hangs_clients_and_resume_frees_them(revived: EmbeddedPostgres) -> None:
    with ThreadPoolExecutor(1) as thread:
        revived.suspend()
        answer = thread.submit(revived.sql, "SELECT 42")
        try:
            with pytest.raises(NotYetError):
                answer.result(0.3)
            assert revived.is_running
        finally:
            revived.resume()
        assert answer.result(5) == "42"


def test_suspend_reaches_the_process_behind_an_open_connection(revived: EmbeddedPostgres) -> None:
    with ThreadPoolExecutor(1) as thread:
        asleep = thread.submit(revived.sql, "SELECT pg_sleep(30)")
        while revived.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != "1":
            assert not asleep.done()
        revived.suspend()
        family = processes(revived)
        states = {psutil.Process(pid).status() for pid in family}
        revived.kill()
        with pytest.raises(EmbeddedError):
            asleep.result(5)
    revived.start()
    assert states == {psutil.STATUS_STOPPED}
    assert process_table.wait_ended(family, 0) == []


def test_stop_ends_a_suspended_server(own_postgres: Own) -> None:
    postgres = own_postgres()
    directory, family = home(postgres), processes(postgres)
    postgres.suspend()
    postgres.stop()
    assert process_table.wait_ended(family, 0) == []
    assert not directory.exists()


def test_a_port_that_was_asked_for_and_is_taken_is_named(open_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match=f"port {port} .* is taken"):
            EmbeddedPostgres(port=port).start()


def test_a_free_port_that_somebody_takes_meanwhile_is_replaced(
    own_postgres: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offers = [taken.getsockname()[1], server.free_port("127.0.0.1")]
        monkeypatch.setattr(server, "free_port", lambda host: offers.pop(0))
        postgres = own_postgres()
        assert offers == []
        assert postgres.port != taken.getsockname()[1]
        assert postgres.sql("SELECT 1") == "1"


def test_a_port_taken_while_the_server_was_down_is_named_and_the_data_stay(revived: EmbeddedPostgres) -> None:
    table(revived)
    revived.kill()
    with (
        socket.create_server((revived.host, revived.port)),
        pytest.raises(EmbeddedError, match=f"port {revived.port} .* is taken"),
    ):
        revived.start()
    revived.start()
    assert revived.sql("SELECT count(*) FROM kept", role="app") == "1000"


def test_a_server_that_refuses_its_settings_is_quoted_and_leaves_nothing(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    with pytest.raises(EmbeddedError, match=r'postgres ended while it was starting(.|\n)*"no_such_setting"'):
        EmbeddedPostgres(options={"no_such_setting": "1"}).start()
    assert list(open_directory.iterdir()) == []


def test_a_server_that_never_answers_is_given_up_with_its_log(
    open_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    clock = SimpleNamespace(sleep=time.sleep, monotonic=lambda: 0.0)
    is_ready = EmbeddedPostgres._is_ready

    def is_never_ready(self: EmbeddedPostgres, *where: Any) -> bool:
        if is_ready(self, *where):
            clock.monotonic = lambda: server.START_TIMEOUT_S
        return False

    monkeypatch.setattr(server, "time", clock)
    monkeypatch.setattr(EmbeddedPostgres, "_is_ready", is_never_ready)
    with pytest.raises(EmbeddedError, match=r"did not answer within 30 s\n(.|\n)*ready to accept connections"):
        EmbeddedPostgres().start()
    assert list(open_directory.iterdir()) == []


def test_a_failed_initdb_is_quoted(open_directory: Path) -> None:
    (open_directory / "data").mkdir()
    (open_directory / "data" / "somebodys").touch()
    with pytest.raises(EmbeddedError, match=r"could not be prepared\n(.|\n)*not empty"):
        EmbeddedPostgres(open_directory).start()
    assert (open_directory / "data" / "somebodys").exists()


def test_a_given_directory_keeps_the_data_past_stop(own_postgres: Own, open_directory: Path) -> None:
    postgres = own_postgres(open_directory)
    table(postgres)
    with pytest.raises(EmbeddedError, match="in use by another postgres"):
        EmbeddedPostgres(open_directory).start()
    postgres.stop()
    again = own_postgres(open_directory)
    assert again.sql("SELECT count(*) FROM kept", role="app") == "1000"


def test_a_running_server_is_not_started_twice(stack: EmbeddedStack) -> None:
    with pytest.raises(EmbeddedError, match="already running"):
        stack.postgres.start()


def test_a_server_that_ended_by_itself_can_be_started_again(revived: EmbeddedPostgres) -> None:
    table(revived)
    pid = revived.pid
    os.kill(pid, 9)
    assert process_table.wait_ended([pid], 5) == []
    assert not revived.is_running
    revived.start()
    assert revived.sql("SELECT count(*) FROM kept", role="app") == "1000"


def test_settings_are_those_that_the_service_counts_on(stack: EmbeddedStack) -> None:
    shown = {
        name: stack.postgres.sql(f"SHOW {name}")
        for name in ("max_connections", "server_encoding", "timezone", "listen_addresses")
    }
    assert shown == {
        "max_connections": "300",
        "server_encoding": "UTF8",
        "timezone": "UTC",
        "listen_addresses": "127.0.0.1",
    }
    assert stack.postgres.sql("SELECT datcollate FROM pg_database WHERE datname = 'app'") == "C"


def test_app_owns_the_database_and_its_schema(stack: EmbeddedStack) -> None:
    assert stack.postgres.sql("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'app'") == "app"
    assert stack.postgres.sql("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'public'") == "app"


def test_no_role_of_the_service_is_a_superuser(stack: EmbeddedStack) -> None:
    roles = stack.postgres.sql(
        "SELECT rolname, rolcanlogin, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles"
        " WHERE rolname IN ('app', 'unprotected', 'loadtest') ORDER BY rolname"
    )
    assert roles.splitlines() == [f"{role}|t|f|f|f" for role in ("app", "loadtest", "unprotected")]


def test_unprotected_reads_and_writes_what_app_made(revived: EmbeddedPostgres) -> None:
    table(revived)
    changed = "UPDATE kept SET n = n + 1; SELECT count(*) FROM kept"
    assert revived.sql(changed, role="unprotected") == "1000"
    with pytest.raises(EmbeddedError, match="permission denied"):
        revived.sql(changed, role="loadtest")


def test_loadtest_sees_and_resets_the_statements_of_others(revived: EmbeddedPostgres) -> None:
    calls = (
        "SELECT calls FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid"
        " WHERE query LIKE '%marked' AND userid = 'app'::regrole AND datname = 'app'"
    )
    for _ in range(3):
        revived.sql("SELECT 1 AS marked", role="app")
    assert revived.sql(calls, role="loadtest") == "3"
    revived.sql("SELECT pg_stat_statements_reset()", role="loadtest")
    assert revived.sql(calls, role="loadtest") == ""
    with pytest.raises(EmbeddedError, match="permission denied"):
        revived.sql("SELECT pg_stat_statements_reset()", role="app")


@pytest.mark.parametrize("database", ["postgres", "app"])
def test_the_roles_script_runs_any_number_of_times_from_any_database(revived: EmbeddedPostgres, database: str) -> None:
    catalog = "SELECT rolname, oid FROM pg_roles UNION SELECT datname, oid FROM pg_database ORDER BY 1"
    before = revived.sql(catalog)
    assert revived.sql(ROLES_SCRIPT.read_text(), database=database) == ""
    assert revived.sql(catalog) == before


def test_a_failing_script_says_why(stack: EmbeddedStack) -> None:
    with pytest.raises(EmbeddedError, match='relation "nowhere" does not exist'):
        stack.postgres.sql("SELECT 1; SELECT * FROM nowhere; SELECT 2")


def test_urls_name_role_and_database(stack: EmbeddedStack) -> None:
    port = stack.postgres.port
    assert stack.postgres.url() == f"postgresql://postgres@127.0.0.1:{port}/app"
    assert stack.postgres.url("loadtest", "other") == f"postgresql://loadtest@127.0.0.1:{port}/other"
    with pytest.raises(EmbeddedError, match="was not started"):
        EmbeddedPostgres().url()


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(EmbeddedError, match="70000 is no port"):
        EmbeddedPostgres(port=70000)
