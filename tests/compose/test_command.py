"""The command on a docker that does as the test says: how it ends when it cannot go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.compose.conftest import FakeDocker

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0


def scenario(docker: FakeDocker) -> subprocess.Popen[str]:
    words = ["scenario", "invalidation", "--compose", "--out", str(docker.folder / "out")]
    return subprocess.Popen(
        [sys.executable, "-m", "app", *words],
        cwd=ROOT,
        env={"PATH": str(docker.folder), "COLUMNS": "200", "NO_COLOR": "1", "HOME": os.environ.get("HOME", "/")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_asked(docker: FakeDocker, *words: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not docker.asked(*words):
        assert time.monotonic() < deadline, f"docker was not asked to {words}"
        time.sleep(0.01)


def test_where_docker_cannot_be_used_it_exits_2_with_one_line(docker: FakeDocker) -> None:
    docker.answer(["version", "--format"], errors="Cannot connect to the Docker daemon at x", status=1)
    command = scenario(docker)
    _, errors = command.communicate(timeout=WAIT_S)
    assert (command.returncode, errors) == (2, "error: no Docker engine answers: start it, or leave out --compose\n")


def test_where_the_stack_does_not_come_up_what_there_is_of_it_is_removed(docker: FakeDocker) -> None:
    docker.answer(["up"], errors="container app-1 exited (2)", status=1)
    docker.answer(["logs"], "APP_CACHE_TTL_S must be greater than 0")
    command = scenario(docker)
    _, errors = command.communicate(timeout=WAIT_S)
    assert (command.returncode, errors.count("\n")) == (2, 1)
    assert "APP_CACHE_TTL_S must be greater than 0" in errors
    assert docker.asked("compose", "down", "--volumes")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_removes_what_it_started_however_impatient_its_user(
    docker: FakeDocker, number: signal.Signals
) -> None:
    docker.answer(["up"], waits=600)
    docker.answer(["down"], waits=0.5)
    command = scenario(docker)
    wait_asked(docker, "up")
    command.send_signal(number)
    wait_asked(docker, "down")
    command.send_signal(number)
    output, errors = command.communicate(timeout=WAIT_S)
    assert (command.returncode, errors) == (130, "")
    assert "interrupted; all is stopped" in output
    assert docker.asked("image", "rm"), "the second signal has cut the removal short"
