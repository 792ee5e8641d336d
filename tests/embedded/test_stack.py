from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.embedded import wheels
from app.embedded.errors import EmbeddedError
from app.embedded.stack import EmbeddedStack


def test_both_run_inside_and_neither_after() -> None:
    with EmbeddedStack() as stack:
        pids = {stack.postgres.pid, stack.redis.pid}
        assert len(pids) == 2
        assert stack.postgres.sql("SELECT 1") == "1"
        socket.create_connection((stack.redis.host, stack.redis.port), 1).close()
    assert not stack.postgres.is_running
    assert not stack.redis.is_running


def test_ports_are_the_ones_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    with EmbeddedStack(postgres_port=ports[0], redis_port=ports[1]) as stack:
        assert (stack.postgres.port, stack.redis.port) == ports


@pytest.mark.parametrize("which", ["postgres_port", "redis_port"])
def test_when_one_fails_the_other_is_stopped(which: str, open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stack = EmbeddedStack(**{which: taken.getsockname()[1]})
        with pytest.raises(EmbeddedError, match="is taken"):
            stack.start()
    assert not stack.postgres.is_running
    assert not stack.redis.is_running
    assert list(open_directory.iterdir()) == []


def test_without_the_wheels_it_says_what_to_do(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_directory))
    monkeypatch.setattr(wheels, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match="is not installed; run `make setup`"):
        EmbeddedStack().start()
    assert list(open_directory.iterdir()) == []
