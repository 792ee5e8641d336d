"""A listener that turns new connections away and loses none that has begun."""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Iterator

import pytest

from app.cli import syn_filter

DEADLINE_S = 10.0
"""Linux sends a SYN again after one second."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such filters")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(DEADLINE_S)
        yield made


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.socket() as made:
        made.settimeout(DEADLINE_S)
        yield made


def test_who_has_connected_is_accepted_and_heard_in_both_directions(
    listener: socket.socket, client: socket.socket
) -> None:
    client.connect(listener.getsockname())
    assert syn_filter.attach(listener)
    client.sendall(b"asked")
    client.shutdown(socket.SHUT_WR)
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(DEADLINE_S)
        assert accepted.recv(100) == b"asked"
        assert accepted.recv(100) == b""
        accepted.sendall(b"answered")
        assert client.recv(100) == b"answered"


def test_who_comes_later_is_not_connected_and_is_refused_once_the_socket_is_closed(
    listener: socket.socket, client: socket.socket
) -> None:
    assert syn_filter.attach(listener)
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.connect(listener.getsockname())
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    address = listener.getsockname()
    listener.close()
    with socket.socket() as another, pytest.raises(ConnectionRefusedError):
        another.connect(address)


def test_who_waits_to_connect_is_refused_when_the_socket_is_closed(
    listener: socket.socket, client: socket.socket
) -> None:
    assert syn_filter.attach(listener)
    address = listener.getsockname()
    client.setblocking(False)
    client.connect_ex(address)
    listener.close()
    assert select.select([], [client], [], DEADLINE_S)[1]
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


def test_a_socket_that_takes_no_filter_is_said() -> None:
    class Bare(socket.socket):
        def setsockopt(self, *_: object) -> None:
            raise OSError(92, "Protocol not available")

    with Bare() as bare:
        assert not syn_filter.attach(bare)
