"""An owner of the embedded servers, in a process of its own, for tests to interrupt and kill.

`python -m tests.embedded.owner_program [suspend] [fork]` starts both servers, prints one JSON line about them, and
waits for Ctrl-C; then it prints whether they still answer, and stops them. With `fork` a child lives on beside it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from app.embedded import process_table
from app.embedded.stack import EmbeddedStack

LIFE_S = 60


def main() -> None:
    with EmbeddedStack() as stack:
        directory = Path(stack.postgres.sql("SHOW data_directory")).parent
        servers = [stack.postgres.pid, stack.redis.pid]
        said = {
            "servers": servers,
            "children": [child for pid in servers for child in process_table.descendants(pid)],
            "watchdogs": [pid for pid in process_table.descendants(os.getpid()) if watches(pid)],
            "directory": str(directory),
            "fork": fork() if "fork" in sys.argv else None,
        }
        if "suspend" in sys.argv:
            stack.postgres.suspend()
            stack.redis.suspend()
        try:
            print(json.dumps(said), flush=True)
            time.sleep(LIFE_S)
        except KeyboardInterrupt:
            print(stack.postgres.sql("SELECT 'still here'"), flush=True)


def fork() -> int:
    """A child that holds all that its parent has open, as those of multiprocessing do."""
    pid = os.fork()
    if not pid:
        os.setsid()
        os.close(1)
        os.close(2)
        time.sleep(LIFE_S)
        os._exit(0)
    return pid


def watches(pid: int) -> bool:
    try:
        return "app.embedded.watchdog" in Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
        return False


if __name__ == "__main__":
    main()
