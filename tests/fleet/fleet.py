"""Worker processes, and what they tell."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.fleet.worker import LINE_LIMIT

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0
ANSWER_TIMEOUT_S = 40.0
BARRIER_S = 0.1
"""How far ahead the moment is set at which all workers begin together."""


class WorkerDied(Exception):  # noqa: N818 - not an error where the test killed it
    """The process ended before it answered."""


class Answer(NamedTuple):
    """One caller's read; times are seconds of CLOCK_MONOTONIC, `busy_s` the process' CPU time meanwhile."""

    key: int
    asked: float
    answered: float
    version: int
    source: str
    error: str
    busy_s: float

    @property
    def took_s(self) -> float:
        return self.answered - self.asked

    @property
    def own_s(self) -> float:
        """How much of that its process can have been the cause of: no more than the CPU time that it used."""
        return min(self.took_s, self.busy_s)


@dataclass
class Load:
    """One load as its worker told it; without an end where the worker died first, without a version where it failed."""

    worker: int
    key: int
    began: float
    ended: float | None = None
    version: int | None = None


@dataclass(frozen=True)
class Seen:
    """A change took effect in a worker, or a version was read there."""

    worker: int
    key: int
    version: int
    at: float


@dataclass
class Told:
    """What all workers have told, in the order in which it arrived."""

    loads: list[Load] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    got: list[Seen] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def loads_of(self, key: int) -> list[Load]:
        return [load for load in self.loads if load.key == key]

    async def until_seen(self, key: int, version: int, workers: Iterable[int], timeout_s: float = 10.0) -> list[Seen]:
        """When the change to this version, or a newer one, first took effect in each of the workers."""
        return await self._until(self.seen, key, version, workers, timeout_s)

    async def until_got(self, key: int, version: int, workers: Iterable[int], timeout_s: float = 10.0) -> list[Seen]:
        """When each of the workers, which follow the key, first read this version or a newer one."""
        return await self._until(self.got, key, version, workers, timeout_s)

    async def _until(
        self, told: list[Seen], key: int, version: int, workers: Iterable[int], timeout_s: float
    ) -> list[Seen]:
        wanted = set(workers)
        async with asyncio.timeout(timeout_s):
            while True:
                self.news.clear()
                first: dict[int, Seen] = {}
                for seen in told:
                    if seen.key == key and seen.version >= version and seen.worker in wanted:
                        first.setdefault(seen.worker, seen)
                if first.keys() == wanted:
                    return list(first.values())
                await self.news.wait()

    async def until_loading(self, key: int, timeout_s: float = 10.0) -> Load:
        """The first load of `key`, once it has begun."""
        async with asyncio.timeout(timeout_s):
            while not (loads := self.loads_of(key)):
                self.news.clear()
                await self.news.wait()
        return loads[0]


class Worker:
    """One process; it ends with this one."""

    def __init__(self, number: int, settings: Mapping[str, Any], told: Told) -> None:
        self.number = number
        self.held_up_s = 0.0
        """For how long at most it could not run while it was last driven."""
        self._settings = settings
        self._told = told
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._commands = itertools.count(1)
        self._loads: dict[int, Load] = {}

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts, again where it has ended, and returns when it is wired and connected."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("APP_")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.fleet.worker",
            cwd=ROOT,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
        )
        self._loads.clear()
        self._ready = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process), name=f"worker-{self.number}")
        self._send(self._settings)
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._ready

    async def call(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The command's answer. Raises `WorkerDied`, and `AssertionError` with what the command raised."""
        number = next(self._commands)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        self._send({"id": number, "do": do, **arguments})
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            said = await answer
        if "failed" in said:
            raise AssertionError(f"worker {self.number}: {said['failed']}")
        return said

    async def read(self, keys: list[int], *, callers: int = 1, at: float | None = None) -> list[Answer]:
        said = await self.call("read", keys=keys, callers=callers, at=time.monotonic() if at is None else at)
        return [Answer(*each) for each in said["answers"]]

    async def drive(self, keys: list[int], *, rate: float, seconds: float, at: float | None = None) -> list[Answer]:
        begin = time.monotonic() if at is None else at
        said = await self.call("drive", keys=keys, rate=rate, seconds=seconds, at=begin)
        self.held_up_s = said["late_s"]
        return [Answer(*each) for each in said["answers"]]

    async def total(self, name: str, **labels: str) -> float:
        """One of its metrics."""
        return float((await self.call("sample", name=name, labels=labels))["value"])

    async def until_total(self, value: float, name: str, timeout_s: float = 20.0, **labels: str) -> None:
        """Wait until that metric has this value."""
        async with asyncio.timeout(timeout_s):
            while await self.total(name, **labels) != value:  # noqa: ASYNC110 - what it asks is another process
                await asyncio.sleep(0.002)

    async def kill(self) -> None:
        """SIGKILL. Harmless where it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._ended()

    async def stop(self) -> None:
        """In good order, by the end of its input; SIGKILL where it does not end by that."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._ended()
        except TimeoutError:
            await self.kill()
            raise
        if self._reader is not None:
            self._reader.result()  # what it could not read

    def _send(self, line: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _ended(self) -> None:
        if self._process is not None and self._reader is not None:
            # A process whose output is not read to its end is waited for in vain.
            await asyncio.wait({self._reader})
            await self._process.wait()

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while (line := await process.stdout.readline()).endswith(b"\n"):  # what was killed may leave half a one
                self._hear(json.loads(line))
        finally:
            for waiting in (self._ready, *self._pending.values()):
                if waiting is not None and not waiting.done():
                    waiting.set_exception(WorkerDied(f"worker {self.number}"))
            self._pending.clear()

    def _hear(self, line: dict[str, Any]) -> None:
        match line.get("event"):
            case None:
                answer = self._pending.pop(line.pop("id"))
                if not answer.done():
                    answer.set_result(line)
            case "ready":
                assert self._ready is not None
                self._ready.set_result(None)
            case "began":
                load = self._loads[line["load"]] = Load(self.number, line["key"], line["at"])
                self._told.loads.append(load)
            case "ended":
                load = self._loads.pop(line["load"])
                load.ended, load.version = line["at"], line["version"]
            case "changed":
                self._told.seen.append(Seen(self.number, line["key"], line["version"], line["at"]))
            case "got":
                self._told.got.append(Seen(self.number, line["key"], line["version"], line["at"]))
        self._told.news.set()


class Fleet:
    """Workers with the same settings: the replicas of one service."""

    def __init__(self, size: int, settings: Mapping[str, Any]) -> None:
        self.told = Told()
        self.workers = [Worker(number, settings, self.told) for number in range(size)]

    async def __aenter__(self) -> Fleet:
        try:
            await asyncio.gather(*(worker.start() for worker in self.workers))
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.gather(*(worker.stop() for worker in self.workers))
        finally:
            await self.kill()

    async def kill(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.workers))

    async def delay(self, ms: float) -> None:
        """How slow the database is for loads from now on."""
        await asyncio.gather(*(worker.call("delay", ms=ms) for worker in self.workers))

    async def read(self, keys: list[int], *, callers: int = 1) -> list[list[Answer]]:
        """So many callers a key in each worker, all at one moment; the answers by worker, none from one that died."""
        at = time.monotonic() + BARRIER_S

        async def read(worker: Worker) -> list[Answer]:
            with contextlib.suppress(WorkerDied):
                return await worker.read(keys, callers=callers, at=at)
            return []

        return list(await asyncio.gather(*(read(worker) for worker in self.workers)))

    async def total(self, name: str, **labels: str) -> float:
        """The sum of a metric over the workers."""
        return sum(await asyncio.gather(*(worker.total(name, **labels) for worker in self.workers)))
