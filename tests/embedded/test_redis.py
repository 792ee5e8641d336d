from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from app.embedded import process_table, server
from app.embedded.errors import EmbeddedError
from app.embedded.redis import EmbeddedRedis
from app.embedded.stack import EmbeddedStack

Own = Callable[..., EmbeddedRedis]


def ask(redis: EmbeddedRedis, command: str, timeout_s: float = 5) -> str:
    with socket.create_connection((redis.host, redis.port), timeout_s) as connection:
        connection.sendall(f"{command}\r\n".encode())
        return connection.recv(65536).decode()


def home(redis: EmbeddedRedis) -> Path:
    return Path(ask(redis, "CONFIG GET dir").splitlines()[-1]).parent


def test_stop_leaves_no_process_and_no_file(own_redis: Own) -> None:
    redis = own_redis()
    directory, pid = home(redis), redis.pid
    assert ask(redis, "PING") == "+PONG\r\n"
    assert directory.exists()
    redis.stop()
    assert not process_table.is_running(pid)
    assert not directory.exists()


def test_it_comes_back_empty_on_the_same_port_after_a_restart_and_after_a_kill(own_redis: Own) -> None:
    redis = own_redis()
    port = redis.port
    for steps in ([redis.restart], [redis.kill, redis.start]):
        ask(redis, "SET key value")
        pid = redis.pid
        for step in steps:
            step()
        assert redis.pid != pid
        assert redis.port == port
        assert ask(redis, "DBSIZE") == ":0\r\n"


def test_suspend_hangs_clients_and_resume_frees_them(own_redis: Own) -> None:
    redis = own_redis()
    with socket.create_connection((redis.host, redis.port), 0.3) as connection:
        redis.suspend()
        try:
            connection.sendall(b"PING\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(64)
        finally:
            redis.resume()
        connection.settimeout(5)
        assert connection.recv(64) == b"+PONG\r\n"


def test_a_port_that_was_asked_for_is_used_or_named(own_redis: Own) -> None:
    port = server.free_port("127.0.0.1")
    assert own_redis(port=port).url() == f"redis://127.0.0.1:{port}/0"
    with pytest.raises(EmbeddedError, match=f"port {port} .* is taken"):
        EmbeddedRedis(port=port).start()


def test_a_free_port_that_another_valkey_takes_meanwhile_is_replaced(
    own_redis: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_redis()
    offers = [first.port, server.free_port("127.0.0.1")]
    monkeypatch.setattr(server, "free_port", lambda host: offers.pop(0))
    second = own_redis()
    assert offers == []
    assert second.port != first.port
    assert f"process_id:{second.pid}\r\n" in ask(second, "INFO server")


def test_memory_is_bounded_and_nothing_is_saved(stack: EmbeddedStack) -> None:
    assert ask(stack.redis, "CONFIG GET maxmemory").splitlines()[-1] == str(64 * 1024 * 1024)
    assert ask(stack.redis, "CONFIG GET maxmemory-policy").splitlines()[-1] == "allkeys-lru"
    assert ask(stack.redis, "CONFIG GET save") == "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"
    assert ask(stack.redis, "CONFIG GET appendonly").splitlines()[-1] == "no"


def test_options_are_the_servers_own(own_redis: Own) -> None:
    redis = own_redis(options={"maxmemory-policy": "noeviction"})
    assert ask(redis, "CONFIG GET maxmemory-policy").splitlines()[-1] == "noeviction"


def test_a_server_that_refuses_its_settings_is_quoted() -> None:
    with pytest.raises(EmbeddedError, match=r"valkey ended while it was starting(.|\n)*no-such-setting"):
        EmbeddedRedis(options={"no-such-setting": "1"}).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_roots_server_does_not_run_as_root(own_redis: Own) -> None:
    assert Path(f"/proc/{own_redis().pid}").stat().st_uid != 0
