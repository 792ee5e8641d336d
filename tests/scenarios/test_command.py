from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]


def scenario(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """The command, with `out` in a folder of the test's own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
    return subprocess.Popen(
        [sys.executable, "-m", "app", "scenario", *words, "--out", str(folder)],
        cwd=ROOT,
        env={**inherited, "COLUMNS": "160", "NO_COLOR": "1", "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["redis-outag"], "there is no scenario redis-outag; did you mean redis-outage?"),
        (["earthquake"], "there is no scenario earthquake; there are redis-outage,"),
        (["redis-outage", "--duration", "1"], "--duration must be from 2 to 3600, not 1"),
        (["redis-outage", "--replicas", "0"], "--replicas must be from 1 to 16, not 0"),
        (["redis-outage", "--rate", "nan"], "--rate must be from 1 to 5000, not nan"),
    ],
)
def test_wrong_names_and_flags_exit_2_with_one_clear_line(tmp_path: Path, words: list[str], complaint: str) -> None:
    output, errors = scenario(tmp_path, *words).communicate(timeout=60)
    assert errors.startswith(f"error: {complaint}")
    assert (errors.count("\n"), output) == (1, "")
    assert not list(tmp_path.glob("scenario-*"))


def test_a_setting_that_the_app_refuses_exits_2_with_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    command = scenario(tmp_path, "invalidation", "--replicas", "1", APP_CACHE_TTL_S="-1")
    _, errors = command.communicate(timeout=90)
    assert command.returncode == 2
    assert "APP_CACHE_TTL_S" in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_everything_that_was_started(tmp_path: Path, number: signal.Signals) -> None:
    command = scenario(tmp_path, "redis-outage", "--duration", "30", "--replicas", "2", "--keys", "5")
    assert command.stdout is not None
    assert any("Redis killed" in line for line in command.stdout)
    family = psutil.Process(command.pid).children(recursive=True)
    assert len(family) >= 3
    time.sleep(0.2)  # in mid-outage; at any other moment the outcome is the same
    command.send_signal(number)
    output, errors = command.communicate(timeout=60)
    assert (command.returncode, errors) == (130, "")
    assert "interrupted; all is stopped" in output
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_the_lease_the_crash_of_a_loader_breaks_the_promise_and_exits_1(tmp_path: Path) -> None:
    words = ["replica-crash", "--duration", "3", "--replicas", "3", "--keys", "5"]
    long_loads = {"APP_LOAD_DELAY_MS": "1000", "APP_LOAD_DEADLINE_S": "2", "APP_LEASE_S": "3"}  # a slow kill hits one
    command = scenario(tmp_path, *words, APP_MODE="singleflight", **long_loads)
    _, errors = command.communicate(timeout=90)
    assert command.returncode == 1, errors
    assert "loads of a cold key whose loader is killed" in errors
    document = json.loads((tmp_path / "scenario-replica-crash.json").read_text())
    assert document["ok"] is False
