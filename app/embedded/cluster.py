"""An embedded Valkey cluster: three primaries and three replicas, which take over from them."""

from __future__ import annotations

import socket
import time
from binascii import crc_hqx
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from app.embedded.directory import ServerDirectory
from app.embedded.errors import EmbeddedError
from app.embedded.redis import EmbeddedRedis
from app.embedded.server import free_port

PRIMARIES = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000
"""How long a node may be silent before the others agree that it is gone; a replica takes over within about as long."""
FORMING_TIMEOUT_S = 30.0
_ANSWER_TIMEOUT_S = 2.0
_POLL_S = 0.02

# A cache: a shard without a primary takes nothing from the others, and a replica that lags is better than none.
_OPTIONS = {
    "cluster-enabled": "yes",
    "cluster-node-timeout": str(NODE_TIMEOUT_MS),
    "cluster-require-full-coverage": "no",
    "cluster-replica-validity-factor": "0",
    "cluster-allow-replica-migration": "no",
    "repl-diskless-sync-delay": "0",
}


class EmbeddedClusterNode(EmbeddedRedis):
    """One Valkey of a cluster. It keeps its membership across `kill` and `start`, but no data."""

    _bus: tuple[int, int] | None = None
    """The port that it listens on for clients, and the one for other nodes."""

    def ask(self, *words: str) -> str:
        """The answer to one command, as text. Raises `EmbeddedError` where it is an error, or there is none."""
        command = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        try:
            with socket.create_connection((self.host, self.port), _ANSWER_TIMEOUT_S) as connection:
                connection.sendall(command.encode())
                with connection.makefile("rb") as answers:
                    line = answers.readline().decode().rstrip("\r\n")
                    text = answers.read(int(line[1:])).decode() if line.startswith("$") else line[1:]
        except (OSError, ValueError) as error:
            raise EmbeddedError(f"{self.name} on port {self.port} does not answer: {error}") from error
        if line.startswith("-") or not line:
            raise EmbeddedError(f"{self.name} on port {self.port}: {' '.join(words)}: {text or 'no answer'}")
        return text

    def members(self) -> list[Member]:
        """The cluster as this node sees it."""
        return [Member.parse(line) for line in self.ask("CLUSTER", "NODES").splitlines()]

    @property
    def bus_port(self) -> int:
        """The port that other nodes talk to. Raises `EmbeddedError` before the first start."""
        if self._bus is None:
            raise EmbeddedError(f"{self.name} was not started")
        return self._bus[1]

    def _command(self, directory: ServerDirectory, port: int) -> list[str]:
        if self._bus is None or self._bus[0] != port:
            self._bus = port, free_port(self.host)
        return [*super()._command(directory, port), "--cluster-port", str(self._bus[1])]


@dataclass(frozen=True, slots=True)
class Member:
    """One line of CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    primary: str
    """The id of the node that this one follows; `-` for none."""
    slots: tuple[range, ...]

    @classmethod
    def parse(cls, line: str) -> Member:
        words = line.split()
        bounds = [word.partition("-") for word in words[8:] if not word.startswith("[")]
        return cls(
            id=words[0],
            port=int(words[1].partition("@")[0].rpartition(":")[2]),
            flags=frozenset(words[2].split(",")),
            primary=words[3],
            slots=tuple(range(int(first), int(last or first) + 1) for first, _, last in bounds),
        )

    @property
    def is_well(self) -> bool:
        return not self.flags & {"fail", "fail?", "handshake", "noaddr"}


class EmbeddedRedisCluster:
    """Six nodes on loopback, each an `EmbeddedServer` that a test may break; all run, or none.

    `start` returns when every slot has a primary and every primary has a replica that is in step. The methods raise
    `EmbeddedError`.
    """

    def __init__(self) -> None:
        self.nodes = [EmbeddedClusterNode(options=_OPTIONS) for _ in range(2 * PRIMARIES)]

    def url(self) -> str:
        """Where it is, as `redis+cluster://host:port,host:port,…`."""
        return "redis+cluster://" + ",".join(f"{node.host}:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start all, and make them a cluster. What was started is stopped where that fails."""
        try:
            with ThreadPoolExecutor(len(self.nodes), thread_name_prefix="embedded") as threads:
                for start in [threads.submit(node.start) for node in self.nodes]:
                    start.result()
            self._form()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop all. Harmless where none runs."""
        with ThreadPoolExecutor(len(self.nodes), thread_name_prefix="embedded") as threads:
            ends = [threads.submit(node.stop) for node in self.nodes]
        for end in ends:
            end.result()

    def primary_of(self, key: str) -> EmbeddedClusterNode:
        """The node that the others take for the primary of the key's slot."""
        slot = slot_of(key)
        for member in self._any_members():
            if any(slot in slots for slots in member.slots) and member.is_well:
                return self._by_port(member.port)
        raise EmbeddedError(f"slot {slot} has no primary")

    def wait_taken_over(self, lost: EmbeddedClusterNode, timeout_s: float = FORMING_TIMEOUT_S) -> None:
        """Return when all other nodes that run agree that every slot has a primary that is well, and `lost` is none."""

        def is_so() -> bool:
            return all(_is_whole(node, lost.port) for node in self.nodes if node.is_running and node is not lost)

        self._wait(is_so, "another has taken over", timeout_s)

    def wait_in_step(self, timeout_s: float = FORMING_TIMEOUT_S) -> None:
        """Return when all nodes run and agree on who is primary, and every replica follows its own."""
        self._wait(self._is_in_step, "every replica is in step", timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _form(self) -> None:
        primaries, replicas = self.nodes[:PRIMARIES], self.nodes[PRIMARIES:]
        for epoch, node in enumerate(self.nodes, start=1):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", str(epoch))
        for number, node in enumerate(primaries):
            first, end = number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES
            node.ask("CLUSTER", "ADDSLOTSRANGE", str(first), str(end - 1))
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER", "MEET", node.host, str(node.port), str(node.bus_port))
        self._wait(lambda: all(map(self._knows_all, self.nodes)), "the nodes know each other", FORMING_TIMEOUT_S)
        for primary, replica in zip(primaries, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", primary.ask("CLUSTER", "MYID"))
        self.wait_in_step()

    def _knows_all(self, node: EmbeddedClusterNode) -> bool:
        members = node.members()
        return len(members) == len(self.nodes) and all(member.is_well for member in members)

    def _is_in_step(self) -> bool:
        if not all(_is_whole(node) for node in self.nodes):
            return False
        roles = [node.ask("INFO", "replication") for node in self.nodes]
        replicas = [role for role in roles if "role:slave" in role]
        return len(replicas) == PRIMARIES and all("master_link_status:up" in role for role in replicas)

    def _any_members(self) -> list[Member]:
        """The cluster as the first node sees it that answers and is no outcast."""
        for node in self.nodes:
            try:
                if "cluster_state:ok" in node.ask("CLUSTER", "INFO"):
                    return node.members()
            except EmbeddedError:
                continue  # it is down, or suspended: ask another
        raise EmbeddedError("no node of the cluster answers")

    def _by_port(self, port: int) -> EmbeddedClusterNode:
        return next(node for node in self.nodes if node.port == port)

    def _wait(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if is_so():
                    return
                why = ""
            except EmbeddedError as error:
                why = f": {error}"
            if time.monotonic() >= deadline:
                raise EmbeddedError(f"the cluster did not come so far within {timeout_s:g} s that {what}{why}")
            time.sleep(_POLL_S)


def slot_of(key: str) -> int:
    """The slot of a key: CRC-16/XMODEM of it, or of what is between its first braces (the cluster specification)."""
    _, brace, rest = key.partition("{")
    tag, closing, _ = rest.partition("}")
    return crc_hqx((tag if brace and closing and tag else key).encode(), 0) % SLOTS


def _is_whole(node: EmbeddedClusterNode, without_port: int = 0) -> bool:
    members = [member for member in node.members() if member.is_well and member.port != without_port]
    covered = sum(len(slots) for member in members for slots in member.slots)
    return covered == SLOTS and "cluster_state:ok" in node.ask("CLUSTER", "INFO")
