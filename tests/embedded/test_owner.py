"""What becomes of the servers when their owner is interrupted, killed, or not root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.embedded import process_table
from app.embedded.postgres import EmbeddedPostgres

ROOT = Path(__file__).parents[2]
SITE_PACKAGES = Path(pytest.__file__).parents[1]
DEADLINE_S = 15.0

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

Owner = subprocess.Popen[str]
Start = Callable[..., Owner]


@pytest.fixture
def owner(open_directory: Path) -> Iterator[Start]:
    """Call it for an owner in a session of its own, with `open_directory` as its temp directory."""
    with ExitStack() as owners:

        def make(*arguments: str, python: str = sys.executable, user: str | None = None) -> Owner:
            process = subprocess.Popen(
                [python, "-m", "tests.embedded.owner_program", *arguments],
                cwd=ROOT,
                env={
                    "PATH": os.defpath,
                    "TMPDIR": str(open_directory),
                    "PYTHONPATH": f"{ROOT}:{SITE_PACKAGES}",
                    "PYTHONDONTWRITEBYTECODE": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                user=user,
                group=None if user is None else "nogroup",
                extra_groups=None if user is None else [],
            )
            owners.enter_context(process)
            owners.callback(process.kill)
            return process

        yield make


def said(process: Owner) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()
    told: dict[str, Any] = json.loads(line)
    assert len(told["watchdogs"]) == 2
    assert all(process_table.is_running(pid) for pid in told["servers"])
    return told


def everyone(told: dict[str, Any]) -> list[int]:
    return [*told["servers"], *told["children"], *told["watchdogs"]]


def wait_until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


def using(directory: Path) -> list[psutil.Process]:
    """Processes that have to do with the directory, by their command lines or their open files' place."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join([*process.cmdline(), process.cwd(), process.environ().get("TMPDIR", "")]):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.parametrize("arguments", [[], ["suspend"]], ids=["running", "suspended"])
def test_a_killed_owner_takes_servers_and_files_along(owner: Start, open_directory: Path, arguments: list[str]) -> None:
    process = owner(*arguments)
    told = said(process)
    process.kill()
    assert process_table.wait_ended(everyone(told), DEADLINE_S) == []
    assert list(open_directory.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_forked_child_that_lives_on_does_not_keep_the_servers(
    owner: Start, open_directory: Path, number: signal.Signals
) -> None:
    process = owner("fork")
    told = said(process)
    try:
        os.kill(process.pid, number)
        assert process_table.wait_ended(everyone(told), DEADLINE_S) == []
        assert process_table.is_running(told["fork"])
        assert list(open_directory.iterdir()) == []
    finally:
        os.kill(told["fork"], signal.SIGKILL)


def test_servers_end_even_when_owner_and_watchdogs_are_killed_together(owner: Start) -> None:
    process = owner()
    told = said(process)
    for pid in [process.pid, *told["watchdogs"]]:
        os.kill(pid, signal.SIGKILL)
    assert process_table.wait_ended(told["servers"] + told["children"], DEADLINE_S) == []
    # What they left can be used again, and the shared memory goes with its next owner. (PostgreSQL takes a process that
    # init has not waited for yet for one that runs: it must not look.)
    left = Path(told["directory"])
    (left / "data" / "postmaster.pid").unlink()
    with EmbeddedPostgres(left) as heir:
        assert heir.sql("SELECT 1") == "1"


def test_a_terminated_owner_takes_servers_and_files_along(owner: Start, open_directory: Path) -> None:
    process = owner()
    told = said(process)
    process.terminate()
    assert process_table.wait_ended(everyone(told), DEADLINE_S) == []
    assert list(open_directory.iterdir()) == []


def test_ctrl_c_reaches_the_owner_and_not_its_servers(owner: Start, open_directory: Path) -> None:
    process = owner()
    told = said(process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert (out, err, process.returncode) == ("still here\n", "", 0)
    assert process_table.wait_ended(everyone(told), 0) == []
    assert list(open_directory.iterdir()) == []


MOMENTS = {
    "the directory is made": "stampede-postgres-*",
    "initdb writes": "stampede-postgres-*/data/PG_VERSION",
    "postgres comes up": "stampede-postgres-*/data/postmaster.pid",
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_owner_stopped_while_it_starts_leaves_nothing(
    owner: Start, open_directory: Path, moment: str, number: signal.Signals
) -> None:
    process = owner()
    wait_until(lambda: next(open_directory.glob(moment), None), f"no {moment}")
    os.killpg(process.pid, number)
    out, _ = process.communicate(timeout=DEADLINE_S)
    # Past the last of these moments it may be serving: then it has said so, and Ctrl-C ends it in good order.
    assert (process.returncode == 0) == (out != "" and number == signal.SIGINT)
    wait_until(lambda: not using(open_directory), "processes are left")
    left = list(open_directory.iterdir())
    # Killed before it gave the directory to its watchdog, nobody is left to remove it but the next start.
    assert left == [] or (number == signal.SIGKILL and moment == MOMENTS["the directory is made"])


def test_an_owner_that_is_not_root_runs_the_servers_as_itself(owner: Start, open_directory: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("this owner is not root: all the other tests say so already")
    python = next(filter(fit_for_nobody, [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"]), None)
    if python is None:
        pytest.skip("no Python 3.11 that nobody may run")
    open_directory.chmod(0o777)
    process = owner(python=python, user="nobody")
    told = said(process)
    uid = Path(f"/proc/{process.pid}").stat().st_uid
    assert uid != 0
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in told["servers"]} == {uid}
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=DEADLINE_S) == ("still here\n", "")
    assert list(open_directory.iterdir()) == []


def fit_for_nobody(python: str) -> bool:
    try:
        done = subprocess.run(
            [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"],
            user="nobody",
            group="nogroup",
            extra_groups=[],
            cwd=ROOT,
            capture_output=True,
            timeout=10,
        )
    except OSError:
        return False
    return done.returncode == 0
