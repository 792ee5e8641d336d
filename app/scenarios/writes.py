"""Writes that land meanwhile, and whether a read was answered with a value older than they are."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from bisect import bisect_right
from collections.abc import Sequence

import asyncpg

from app.loadtest.errors import RequestError
from app.loadtest.open_loop import Answer, Endpoint, template_version

_UPDATE = "UPDATE templates SET body = $2, updated_at = clock_timestamp() WHERE id = $1 RETURNING version"
_ANSWER_TIMEOUT_S = 5.0


class Ledger:
    """Acknowledged writes: for each key, versions and when their acknowledgement came, both ascending."""

    def __init__(self) -> None:
        self._versions: dict[int, list[int]] = {}
        self._times: dict[int, list[float]] = {}

    def acknowledged(self, key: int, version: int, at: float) -> None:
        self._versions.setdefault(key, []).append(version)
        self._times.setdefault(key, []).append(at)

    @property
    def writes(self) -> int:
        return sum(map(len, self._versions.values()))

    def keys_written(self, since: float, until: float) -> set[int]:
        """The keys with a write acknowledged in between."""
        return {key for key, times in self._times.items() if any(since <= at <= until for at in times)}

    def lag_s(self, answer: Answer, *, until: float | None = None) -> float:
        """For how long, when the request was sent, a newer value than the one answered had been acknowledged.

        0 where the answer was the newest then. With `until`, only of writes acknowledged up to then.
        """
        if not answer.version:
            return 0.0
        versions = self._versions.get(answer.key, [])
        newer = bisect_right(versions, answer.version)
        if newer == len(versions):
            return 0.0
        at = self._times[answer.key][newer]
        if until is not None and at > until:
            return 0.0
        return max(0.0, answer.sent - at)


class Writer:
    """Writes keys in turn, `rate` times a second: by the app's PUT at one replica after the other, and by plain SQL."""

    def __init__(
        self, endpoints: Sequence[Endpoint], database: asyncpg.Connection, keys: Sequence[int], ledger: Ledger
    ) -> None:
        self._ways = itertools.cycle([None, *endpoints])
        self._keys = itertools.cycle(keys)
        self._database = database
        self._ledger = ledger
        self._written = 0
        self.failures: list[str] = []

    async def run(self, rate: float) -> None:
        """Until cancelled. A write that failed may have landed; it is not in the ledger, as nobody was told so."""
        while True:
            began = time.monotonic()
            await self.write(next(self._keys))
            await asyncio.sleep(max(0.0, began + 1 / rate - time.monotonic()))

    async def write(self, key: int) -> None:
        """One write. Failures are kept, not raised."""
        self._written += 1
        body = f"Written by a scenario, number {self._written}."
        endpoint = next(self._ways)
        try:
            if endpoint is None:
                version = await self._database.fetchval(_UPDATE, key, body, timeout=_ANSWER_TIMEOUT_S)
            else:
                document = json.dumps({"name": f"Scenario {key}", "body": body}).encode()
                response = await endpoint.replace(key, document)
                if response.status != 200:
                    self.failures.append(f"status {response.status}")
                    return
                version = template_version(response)
        except RequestError as error:
            self.failures.append(error.kind)
            return
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            self.failures.append(str(error) or type(error).__name__)
            return
        self._ledger.acknowledged(key, version, time.monotonic())
