"""A client in a process of its own that asks for very many keys in one instant, while others time something else.

`python -m app.scenarios.flood` is that process: it is told what to ask for in one line of JSON, says `ready` when its
connections are open, asks when the next line comes, prints the answers, and keeps its connections until it is ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from app.loadtest.errors import RequestError
from app.loadtest.open_loop import Answer, Endpoint
from app.loadtest.runner import allow_files
from app.scenarios.errors import ScenarioError

READY_TIMEOUT_S = 30.0
LINE_LIMIT = 64 * 1024 * 1024
_ROOT = Path(__file__).resolve().parents[2]


@contextlib.asynccontextmanager
async def flood(
    addresses: Sequence[tuple[str, int]], keys: range, timeout_s: float
) -> AsyncIterator[Callable[[], Awaitable[list[Answer]]]]:
    """Yields what asks for all the keys, each once, the servers in turn; it can be called once.

    Raises `ScenarioError` where the client does not get ready, or does not answer `timeout_s` seconds after it should.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.scenarios.flood"),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - both were asked for
    assert process.stdout is not None  # noqa: S101
    orders, words = process.stdin, process.stdout

    async def hear(within_s: float) -> bytes:
        try:
            line = await asyncio.wait_for(words.readline(), within_s)
        except TimeoutError:
            line = b""
        if not line:
            raise ScenarioError("the client that floods the replicas did not do its work")
        return line

    async def ask() -> list[Answer]:
        orders.write(b"go\n")
        return [Answer(*each) for each in json.loads(await hear(2 * timeout_s))]

    try:
        first = {"addresses": addresses, "first": keys.start, "count": len(keys), "timeout_s": timeout_s}
        orders.write(json.dumps(first).encode() + b"\n")
        await hear(READY_TIMEOUT_S)
        yield ask
    finally:
        orders.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ask_when_told(told: dict[str, object], wait: Callable[[], Awaitable[bytes]]) -> None:
    """Ask when the next line comes, tell the answers, and keep the connections until no line comes any more.

    Thousands that are closed in one instant are another load, for which nobody asked.
    """
    addresses, first, count = told["addresses"], told["first"], told["count"]
    assert isinstance(addresses, list)  # noqa: S101 - as `flood` writes it
    assert isinstance(first, int)  # noqa: S101
    assert isinstance(count, int)  # noqa: S101
    timeout_s = float(str(told["timeout_s"]))
    endpoints = [Endpoint(number, *address, timeout_s=timeout_s) for number, address in enumerate(addresses)]
    try:
        for endpoint in endpoints:
            await endpoint.open(count // len(endpoints) + 1)
        gc.collect()
        gc.freeze()
        print("ready", flush=True)  # noqa: T201 - standard output is its parent's
        if not await wait():
            return
        due = time.monotonic()
        asks = (endpoints[number % len(endpoints)].get(first + number, due) for number in range(count))
        answers = await asyncio.gather(*asks)
        print(json.dumps(answers), flush=True)  # noqa: T201
        await wait()
    finally:
        for endpoint in endpoints:
            endpoint.close()


async def main() -> None:
    lines = asyncio.StreamReader(limit=LINE_LIMIT)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    told = json.loads(await lines.readline())
    allow_files(told["count"] + 1_024, "--cold-keys")
    try:
        await _ask_when_told(told, lines.readline)
    except RequestError as error:
        sys.exit(f"flood: {error}")


if __name__ == "__main__":
    uvloop.run(main())
