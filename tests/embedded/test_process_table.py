from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded import process_table

FAMILY = """
import subprocess, sys
child = subprocess.Popen(["sleep", "60"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture(params=["proc", "ps"], autouse=True)
def source(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux' /proc, and `ps` as on macOS: both must say the same."""
    if request.param == "ps":
        if shutil.which("ps") is None:
            pytest.skip("no ps here")
        monkeypatch.setattr(process_table, "_PROC", Path("/nonexistent"))
    elif not Path("/proc/self/stat").exists():
        pytest.skip("no /proc here")
    return str(request.param)


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], int]]:
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        yield parent, child
        process_table.send([child, parent.pid], signal.SIGKILL)


def test_descendants_are_children_and_theirs(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    assert process_table.descendants(parent.pid) == [child]
    assert {parent.pid, child} <= set(process_table.descendants(os.getpid()))
    assert process_table.descendants(child) == []


def test_a_process_that_ended_but_was_not_waited_for_does_not_run(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    assert process_table.is_running(parent.pid)
    process_table.send([child, parent.pid], signal.SIGKILL)
    assert process_table.wait_ended([parent.pid], 5) == []
    os.kill(parent.pid, 0)  # it is there still, as a zombie
    parent.wait()
    assert not process_table.is_running(parent.pid)


def test_those_that_do_not_end_in_time_are_named(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    assert process_table.wait_ended([parent.pid, child], 0) == [parent.pid, child]


def test_a_signal_to_one_that_is_gone_still_reaches_the_next(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    process_table.send([gone.pid, child], signal.SIGKILL)
    assert process_table.wait_ended([child, parent.pid], 5) == []


def test_a_name_with_spaces_and_parentheses_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) b (c"
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    with subprocess.Popen([program, "60"]) as odd:
        assert process_table.is_running(odd.pid)
        assert odd.pid in process_table.descendants(os.getpid())
        odd.kill()


def test_stopped_is_said_once_the_signal_has_taken_hold(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    assert process_table.wait_stopped([parent.pid, child], 0) == [parent.pid, child]
    process_table.send([child], signal.SIGSTOP)
    assert process_table.wait_stopped([child], 5) == []
    assert process_table.is_running(child)
    assert process_table.wait_stopped([parent.pid, child], 0) == [parent.pid]
