"""One process of a fleet under test: the wired service without HTTP or gRPC, driven by lines of JSON.

Standard input has the settings, by name, in its first line, and then a command a line: `{"id", "do", …}`. Standard
output has `{"id", …}` or `{"id", "failed"}` for each, in any order, and in between `{"event", …}` as it happens, so
that what a killed process had begun is known. All times are CLOCK_MONOTONIC's, which the processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar
from unittest.mock import patch

import uvloop

from app.bootstrap import read_path
from app.bootstrap import runtime as wiring
from app.cache.loader import Loader
from app.cli import garbage
from app.domain.errors import DomainError
from app.domain.ports import Reading
from app.domain.template import Template, TemplateDraft
from app.settings import Settings
from app.storage.templates import TemplateRepository

LINE_LIMIT = 64 * 1024 * 1024
TICK_S = 0.01


_unsaid: queue.SimpleQueue[bytes] = queue.SimpleQueue()


def say(line: dict[str, Any]) -> None:
    """Without waiting for whoever reads it: a long line does not fit into a pipe."""
    _unsaid.put(json.dumps(line).encode() + b"\n")


def _write() -> None:
    while True:
        sys.stdout.buffer.write(_unsaid.get())
        sys.stdout.buffer.flush()


class ToldRepository(TemplateRepository):
    """Tells when each load begins and ends, and is as slow as it is told to be."""

    delay_s: ClassVar[float] = 0.0
    _loads: ClassVar[int] = 0

    async def load(self, template_id: int) -> tuple[Template | None, int]:
        ToldRepository._loads += 1
        number = ToldRepository._loads
        self.load_delay_s = ToldRepository.delay_s
        say({"event": "began", "load": number, "key": template_id, "at": time.monotonic()})
        version = None
        try:
            template, version = await super().load(template_id)
        finally:
            say({"event": "ended", "load": number, "version": version, "at": time.monotonic()})
        return template, version


class ToldLoader(Loader):
    """Tells when a change has taken effect: no read that begins then gets anything older.

    A key that is followed is read at once, and what came of it told.
    """

    followed: ClassVar[set[str]] = set()
    _following: ClassVar[set[asyncio.Task[None]]] = set()

    def changed(self, changes: Sequence[tuple[str, int]]) -> None:
        super().changed(changes)
        now = time.monotonic()
        for key, version in changes:
            say({"event": "changed", "key": int(key), "version": version, "at": now})
            if key in self.followed:
                task = asyncio.create_task(self._follow(key))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

    async def _follow(self, key: str) -> None:
        reading = await self.read(key)
        say({"event": "got", "key": int(key), "version": reading.version, "at": time.monotonic()})


class Worker:
    def __init__(self, runtime: wiring.Runtime) -> None:
        self._runtime = runtime
        self._service = runtime.service
        self._callers: dict[int, asyncio.Task[Reading]] = {}

    async def read(self, keys: list[int], callers: int, at: float) -> dict[str, Any]:
        """So many callers a key, all at the moment `at`."""
        await asyncio.sleep(at - time.monotonic())
        reads = [self._read(key, time.monotonic()) for key in keys for _ in range(callers)]
        return {"answers": await asyncio.gather(*reads)}

    async def drive(self, keys: list[int], rate: float, seconds: float, at: float) -> dict[str, Any]:
        """Reads at a fixed rate, whether or not earlier ones were answered, each asked when it was due.

        With the answers, for how long at most the process was held up meanwhile.
        """
        reads: list[asyncio.Task[list[Any]]] = []
        late_s = 0.0

        async def tick() -> None:
            nonlocal late_s
            due = time.monotonic()
            while True:
                late_s = max(late_s, time.monotonic() - due)
                due = time.monotonic() + TICK_S
                await asyncio.sleep(TICK_S)

        ticking = asyncio.create_task(tick())
        for number in range(round(rate * seconds)):
            due, busy_s = at + number / rate, time.process_time()
            if due > time.monotonic():
                await asyncio.sleep(due - time.monotonic())
            reads.append(asyncio.create_task(self._read(keys[number % len(keys)], due, busy_s)))
        answers = await asyncio.gather(*reads)
        await asyncio.sleep(TICK_S)  # what held the last ones up is seen by then
        ticking.cancel()
        return {"answers": answers, "late_s": late_s}

    async def begin(self, key: int) -> dict[str, Any]:
        """One caller, who waits until told to `leave`."""
        self._callers[key] = asyncio.create_task(self._service.read(key))
        return {}

    async def leave(self, key: int) -> dict[str, Any]:
        """That caller gives up; when."""
        caller = self._callers.pop(key)
        caller.cancel()
        left_at = time.monotonic()
        await asyncio.wait({caller})
        return {"at": left_at}

    async def write(self, key: int, body: str) -> dict[str, Any]:
        template = await self._service.update(key, TemplateDraft("written", body))
        return {"version": template.version, "at": time.monotonic()}

    async def delay(self, ms: float) -> dict[str, Any]:
        """How slow the database is from now on."""
        ToldRepository.delay_s = ms / 1000
        return {}

    async def follow(self, key: int) -> dict[str, Any]:
        """From now on read the key whenever it has changed."""
        ToldLoader.followed.add(str(key))
        return {}

    async def sample(self, name: str, labels: dict[str, str]) -> dict[str, Any]:
        """One of the process' metrics."""
        return {"value": self._runtime.metrics.registry.get_sample_value(name, labels)}

    async def _read(self, key: int, asked: float, busy_s: float | None = None) -> list[Any]:
        """`busy_s`: the CPU time that the process had used when it began to wait for the moment to ask."""
        busy_s = time.process_time() if busy_s is None else busy_s
        version, source, error = 0, "", ""
        try:
            reading = await self._service.read(key)
            version, source = reading.version, reading.source
        except DomainError as raised:
            error = raised.code
        return [key, asked, time.monotonic(), version, source, error, time.process_time() - busy_s]


async def serve() -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = Settings(**json.loads(await lines.readline()))
    ToldRepository.delay_s = settings.load_delay_ms / 1000
    with patch.object(wiring, "TemplateRepository", ToldRepository), patch.object(read_path, "Loader", ToldLoader):
        async with wiring.running(settings) as runtime:
            worker = Worker(runtime)
            garbage.settle()  # as `python -m app serve` does once it serves
            say({"event": "ready", "at": time.monotonic()})
            commands: set[asyncio.Task[None]] = set()
            while line := await lines.readline():
                command = json.loads(line)
                number, method = command.pop("id"), getattr(worker, command.pop("do"))
                task = asyncio.create_task(answer(number, method, command))
                commands.add(task)
                task.add_done_callback(commands.discard)
            for task in commands:
                task.cancel()


async def answer(number: int, method: Callable[..., Awaitable[dict[str, Any]]], arguments: dict[str, Any]) -> None:
    try:
        said = await method(**arguments)
    except Exception as error:  # noqa: BLE001 - whoever asked is told
        said = {"failed": f"{type(error).__name__}: {error}"}
    say({"id": number, **said})


if __name__ == "__main__":
    threading.Thread(target=_write, name="output", daemon=True).start()
    uvloop.run(serve())
