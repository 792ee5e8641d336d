"""The program between an owner and its server: it runs the server, and ends it when the owner ends, however that ends.

Its standard input is a pipe from the owner; the kernel closes it with the owner, SIGKILL included. First comes one
line, a `Specification` in JSON; then nothing until the owner writes `KEEP` or `REMOVE`, or is gone. Its standard output
is one line: the server's process id, or `failed` where a preparing command failed. Its standard error is the server's
log.

It has its own session, so that a Ctrl-C in the owner's terminal reaches neither it nor the server.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from app.embedded import process_table

KEEP = b"keep\n"
REMOVE = b"remove\n"
FAILED = "failed"
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.005
_OWNER_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Specification:
    """What to run and how to end it.

    `prepare` are commands that must succeed, in order, before `command`. `stop_signal` asks the server to end; after
    `stop_timeout_s` seconds all its processes are killed. `directory` is removed at the end, unless it is None or the
    owner wrote `KEEP`. `uid` and `gid` are None to run as the owner.
    """

    prepare: list[list[str]]
    command: list[str]
    environment: dict[str, str]
    directory: str | None
    stop_signal: int
    stop_timeout_s: float
    uid: int | None
    gid: int | None

    def encode(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Specification:
        return cls(**json.loads(line))


def main() -> None:
    """Run until the owner says so or is gone."""
    # Python's own handler would swallow a stop signal that comes between fork and exec.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    owner = os.getppid()
    orders = io.FileIO(0, closefd=False)  # unbuffered: select must see what was not read yet
    line = orders.readline()
    if not line:
        return
    specification = Specification.decode(line)
    server = _run(specification)
    with suppress(BrokenPipeError):
        os.write(1, f"{FAILED if server is None else server}\n".encode())
    # A fork of the owner holds the pipe too: its end alone does not say that the owner lives.
    while not select.select([orders], [], [], _OWNER_POLL_S)[0] and os.getppid() == owner:
        continue
    word = orders.readline() if os.getppid() == owner else b""
    if server is not None:
        _end(server, specification)
    if specification.directory is not None and word != KEEP:
        shutil.rmtree(specification.directory, ignore_errors=True)


def _run(specification: Specification) -> int | None:
    for command in specification.prepare:
        _, status = os.waitpid(_spawn(command, specification), 0)
        if status != 0:
            return None
    return _spawn(specification.command, specification)


def _spawn(command: list[str], specification: Specification) -> int:
    watchdog = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    # In the child: nothing may return from here, nor be imported past the change of user: modules may be out of reach.
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        if specification.uid is not None and specification.gid is not None:
            os.setgroups([])
            os.setgid(specification.gid)
            os.setuid(specification.uid)
        _die_with(watchdog)
        os.execve(command[0], command, specification.environment)  # noqa: S606 - nothing here is for a shell
    except BaseException as error:  # noqa: BLE001 - whatever it is, the log must say it
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent: a second net, for a watchdog that is killed itself.

    Linux only. The kernel forgets it at a change of user, and looks at the parent's thread, not its process: call it
    after the one, and fork from the main thread.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _end(server: int, specification: Specification) -> None:
    family = [server, *process_table.descendants(server)]
    process_table.send(family, signal.SIGCONT)  # a suspended one hears nothing else
    process_table.send([server], signal.Signals(specification.stop_signal))
    deadline = time.monotonic() + specification.stop_timeout_s
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        if time.monotonic() >= deadline:
            process_table.send([*family, *process_table.descendants(server)], signal.SIGKILL)
            os.waitpid(server, 0)
            break
        time.sleep(_POLL_S)
    process_table.send(process_table.wait_ended(family, 1), signal.SIGKILL)


if __name__ == "__main__":
    main()
