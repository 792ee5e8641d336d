"""The process table, as far as the servers need it: who is whose child, who is gone, signals to many."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_POLL_S = 0.005


_GONE = ""
_ENDED = frozenset({_GONE, "X", "Z"})
_STOPPED = frozenset({"T", "t"})


class _Entry(NamedTuple):
    parent: int
    state: str


def descendants(pid: int) -> list[int]:
    """The children of `pid`, their children and so on. One that is forked meanwhile may be missed: stop `pid` first."""
    children: dict[int, list[int]] = {}
    for child, entry in _table().items():
        children.setdefault(entry.parent, []).append(child)
    found = [*children.get(pid, [])]
    for one in found:
        found.extend(children.get(one, []))
    return found


def is_running(pid: int) -> bool:
    """Whether `pid` is a process; one that has ended and was not waited for (a zombie) is none."""
    return _state(pid) not in _ENDED


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send the signal to each that is still there."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def wait_ended(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until none of them runs; returns those that still do after `timeout_s` seconds."""
    return _wait(pids, _ENDED, timeout_s)


def wait_stopped(pids: Iterable[int], timeout_s: float) -> list[int]:
    """Wait until SIGSTOP has taken hold of all, or they ended; returns those that go on after `timeout_s` seconds."""
    return _wait(pids, _ENDED | _STOPPED, timeout_s)


def _wait(pids: Iterable[int], states: AbstractSet[str], timeout_s: float) -> list[int]:
    deadline = time.monotonic() + timeout_s
    left = list(pids)
    while left := [pid for pid in left if _state(pid) not in states]:
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_S)
    return left


def _state(pid: int) -> str:
    entry = _stat(pid) if _has_proc() else _table().get(pid)
    return _GONE if entry is None else entry.state


def _has_proc() -> bool:
    return (_PROC / "self" / "stat").exists()


def _table() -> dict[int, _Entry]:
    if _has_proc():
        pids = (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208 - Path objects cost here
        return {pid: entry for pid in pids if (entry := _stat(pid)) is not None}
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="],  # noqa: S607 - its place differs between systems
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid): _Entry(int(parent), state[:1]) for pid, parent, state, *_ in rows}


def _stat(pid: int) -> _Entry | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): the second field is the program's name in parentheses, and may hold any character.
    state, parent = stat[stat.rindex(b")") + 2 :].split()[:2]
    return _Entry(int(parent), state.decode())
