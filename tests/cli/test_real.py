"""`get`, `watch` and `import` against the real service."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.cli.test_remote import ended, started
from tests.faults.in_process import served


async def test_what_was_imported_can_be_read_and_watched(tmp_path: Path, database_url: str, redis_url: str) -> None:
    lines = "".join(json.dumps({"name": f"from a file {n}", "body": "é"}) + "\n" for n in range(150)).encode()
    async with served(database_url, redis_url) as service:
        at = ["--target", f"127.0.0.1:{service.grpc_port}", "--json"]
        imported = await ended(tmp_path, "import", "-", "--request-id", "once", *at, stdin=lines)
        again = await ended(tmp_path, "import", "-", "--request-id", "once", *at, stdin=lines)
        assert (imported.status, imported.err) == (0, "")
        assert again == imported  # and so not done twice
        summary = json.loads(imported.out)
        assert (summary["imported"], summary["bytes"]) == (
            150,
            len("".join(f"from a file {n}é" for n in range(150))) + 150,
        )
        template_id = str(summary["last_id"])

        read = await ended(tmp_path, "get", template_id, *at)
        assert json.loads(read.out).items() >= {"id": int(template_id), "body": "é", "version": 1}.items()

        watching = await started(tmp_path, "watch", template_id, *at)
        assert watching.stdout is not None
        first = json.loads(await asyncio.wait_for(watching.stdout.readline(), 60))
        assert (first["version"], first["template"]["body"]) == (1, "é")
        watching.send_signal(signal.SIGINT)
        await asyncio.wait_for(watching.communicate(), 30)
        assert watching.returncode == 130

        refused = await ended(tmp_path, "watch", *map(str, range(1, 1_002)), *at)
        assert (refused.status, refused.out) == (1, "")
        assert refused.err.startswith("error: ")
        assert refused.err.endswith("(INVALID_ARGUMENT)\n")
