"""Load on one app that is told to end meanwhile: HOST PORT. Exit status 0 when no request was lost.

Callers send one request after the other, each on a connection of its own, until `/ready` stops saying 200, as a load
balancer would. Every request that was sent must be answered in full.
"""

from __future__ import annotations

# ruff: noqa: T201 - what it prints is its result
import asyncio
import itertools
import sys

CALLERS = 40
UNDER_WAY = 200
WAIT_S = 30.0


async def get(host: str, port: int, path: str) -> int:
    """The status of a whole answer; raises `ConnectionError` where it is cut short or never comes."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    lines = head.decode().lower().split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.startswith("content-length:")), -1)
    if length < 0 or len(body) != length:
        raise ConnectionError(f"{path} was answered by {len(body)} bytes of {length}")
    return int(lines[0].split()[1])


async def main(host: str, port: int) -> int:
    host = str((await asyncio.get_running_loop().getaddrinfo(host, port))[0][4][0])  # the name goes with the container
    ids = itertools.count()
    answered: dict[int, int] = {}
    lost: list[str] = []
    told = asyncio.Event()

    async def caller() -> None:
        while not told.is_set():
            try:
                status = await get(host, port, f"/template-details?id={1 + next(ids) % 1000}")
            except (OSError, asyncio.IncompleteReadError) as error:
                lost.append(repr(error))
            else:
                answered[status] = answered.get(status, 0) + 1
                if sum(answered.values()) == UNDER_WAY:
                    print("under way", flush=True)

    async def watch() -> None:
        while await get(host, port, "/ready") == 200:  # noqa: ASYNC110 - the state is in another process
            await asyncio.sleep(0.01)
        told.set()

    try:
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(watch(), *(caller() for _ in range(CALLERS)))
    except TimeoutError:
        lost.append(f"/ready did not turn within {WAIT_S:g} s")
    print(f"drained: answered by status {answered}, lost {len(lost)}")
    for each in lost[:10]:
        print("lost:", each)
    return 1 if lost or set(answered) != {200} else 0


sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]))))
