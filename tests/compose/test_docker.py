from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest

from app.compose import docker as command
from app.compose.errors import ComposeError
from app.compose.ports import LOOPBACK, free_block
from tests.compose.conftest import FakeDocker


def complaint() -> str:
    with pytest.raises(ComposeError) as raised:
        command.require()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_without_docker_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert complaint() == "there is no docker command here: install Docker, or leave out --compose"


@pytest.mark.parametrize(
    "words",
    ["docker: 'compose' is not a docker command.\nSee 'docker --help'", "docker: unknown command: docker compose"],
)
def test_without_the_compose_plugin_that_is_said(docker: FakeDocker, words: str) -> None:
    docker.answer(["compose", "version"], errors=words, status=1)
    assert complaint() == "docker has no compose plugin: install Docker Compose 2.17 or newer"


@pytest.mark.parametrize(
    ("version", "told"), [("2.16.9", "2.16.9"), ("v1.29.2", "v1.29.2"), ("", "of an unknown version")]
)
def test_a_compose_that_is_too_old_is_told_by_its_version(docker: FakeDocker, version: str, told: str) -> None:
    docker.answer(["compose", "version"], version)
    assert complaint() == f"Docker Compose is {told}: 2.17 or newer is needed"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
            "no Docker engine answers: start it, or leave out --compose",
        ),
        (
            "error during connect: this error may indicate that the docker daemon is not running",
            "no Docker engine answers: start it, or leave out --compose",
        ),
        (
            "permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock",
            "this user may not use the Docker engine: run it with sudo, or as a member of the group docker",
        ),
    ],
)
def test_an_engine_that_cannot_be_used_is_told_apart_by_why(docker: FakeDocker, words: str, told: str) -> None:
    docker.answer(["version", "--format"], errors=words, status=1)
    assert complaint() == told


@pytest.mark.parametrize("version", ["2.17.0", "v2.40.3", "5.0.0-rc1"])
def test_where_all_is_there_nothing_is_said(docker: FakeDocker, version: str) -> None:
    docker.answer(["compose", "version"], version)
    command.require()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Bind for 127.0.0.1:20001 failed: port is already allocated", "127.0.0.1:20001"),
        ("Error starting userland proxy: listen tcp4 127.0.0.1:20001: bind: address already in use", "127.0.0.1:20001"),
        ("failed to bind host port 127.0.0.1:20001/tcp: address already in use", "127.0.0.1:20001"),
        ("all ports are allocated", "a port"),
    ],
)
def test_a_port_that_was_taken_meanwhile_is_named(docker: FakeDocker, words: str, told: str) -> None:
    docker.answer(["start"], errors=f"Error response from daemon: driver failed: {words}", status=1)
    with pytest.raises(ComposeError, match=f"^{told} was free a moment ago and has been taken since: run it again$"):
        command.run("start", "x")


def test_any_other_failure_is_told_in_dockers_own_last_words_on_one_line(docker: FakeDocker) -> None:
    docker.answer(["pause"], errors="a\n\nb\nc\nno such container\n", status=1)
    with pytest.raises(ComposeError, match=r"^docker pause failed: b / c / no such container$"):
        command.run("pause", "x")


def test_a_command_that_hangs_is_ended_at_its_deadline(docker: FakeDocker) -> None:
    docker.answer(["inspect"], waits=600)
    with pytest.raises(ComposeError, match=r"^docker inspect did not end within 0\.5 s$"):
        command.run("inspect", "x", timeout_s=0.5)


def test_a_block_of_ports_is_in_a_row_and_has_none_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = free_block(20), free_block(20)
    begins = iter([first[0], second[0]])
    monkeypatch.setattr(random, "randrange", lambda *_: next(begins))
    taken = next(port for port in reversed(first) if port not in second)
    with socket.create_server((LOOPBACK, taken)):
        assert free_block(20) == second
