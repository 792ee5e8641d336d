"""The rules of a file, applied to the calls that pass: by whom the intercept lane is told what to do.

Messages are changed by the types that the schema has for them. What could not be done leaves a message as it was, is
counted and told, and is never half done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from app.concurrency.clock import monotonic
from app.concurrency.fair_timeout import FairTimeout
from app.loom.call import Altered, Direction, Headers, Status
from app.loom.rules import file
from app.loom.rules.engine import CallRules, MutationError, Ruleset
from app.loom.rules.file import RulesError
from app.loom.rules.model import Rule
from app.loom.schema.cache import SchemaCache
from app.loom.schema.schema import new_message

_log = logging.getLogger(__name__)

SCHEMA_S: Final = 2.0
"""How long a call whose messages are to be changed waits for the schema, while there is none."""


class MutationEvents(Protocol):
    """Is told of what rules have done."""

    def mutated(self, event: Altered, method: str) -> None:
        """Something was changed, or could not be: see the event."""


class Mutations:
    """The rules in force. Implements `app.loom.proxy.interception.Interception`."""

    def __init__(self, path: Path | None, events: MutationEvents) -> None:
        """Raises `RulesError` where there is a file and it can't be used."""
        self.path = path
        self.problem = ""
        """Why the file was refused when it was read last; empty where it was not. The rules before it are in force."""
        self.schemas: SchemaCache | None = None
        """Explains messages; without it none is changed."""
        self.on_switched: Callable[[], None] = lambda: None
        """Called once there are rules where there were none, or none any more."""
        self._events = events
        self._ruleset = Ruleset() if path is None else Ruleset(file.load(path))

    @property
    def is_active(self) -> bool:
        return bool(self._ruleset)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return self._ruleset.rules

    def state(self) -> dict[str, object]:
        """What there is to know of them, for JSON."""
        return {
            "file": None if self.path is None else str(self.path),
            "problem": self.problem,
            "rules": [rule.document() for rule in self.rules],
        }

    def reload(self) -> str:
        """Read the file again: for calls that begin from now on. Returns the problem, empty where there is none."""
        if self.path is None:
            self.problem = "there is no file of rules: start with --mutate FILE"
            return self.problem
        was_active = self.is_active
        try:
            self._ruleset = Ruleset(file.load(self.path))
        except RulesError as error:
            self.problem = str(error)
            _log.error("the rules stay as they were: %s", error)
            return self.problem
        self.problem = ""
        _log.info("%d rules from %s", len(self._ruleset.rules), self.path)
        if was_active != self.is_active:
            self.on_switched()
        return ""

    def for_call(self, call: int | None, method: str) -> CallMutation | None:
        rules = self._ruleset.for_call(method)
        return CallMutation(rules, call, method, self.schemas, self._events) if rules.rules else None


class CallMutation:
    """Implements `app.loom.proxy.interception.CallInterception`."""

    def __init__(
        self, rules: CallRules, call: int | None, method: str, schemas: SchemaCache | None, events: MutationEvents
    ) -> None:
        self._rules = rules
        self._call = call
        self._method = method
        self._schemas = schemas
        self._events = events
        self._positions = dict.fromkeys(Direction, 0)

    @property
    def hold(self) -> Callable[[], Awaitable[None]] | None:
        return self._wait if self._rules.delay_s or self._lacks_schema() else None

    @property
    def abort(self) -> tuple[Status, str] | None:
        abort = self._rules.abort
        return None if abort is None else (abort.status, abort.message)

    def headers(self, direction: Direction, headers: Headers) -> Headers:
        edited = self._rules.headers(direction, headers)
        if edited != headers:
            self._tell(direction, None, "")
        return edited

    def rewrites(self, direction: Direction) -> bool:
        return self._rules.edits(direction)

    def message(self, direction: Direction, data: bytes) -> bytes | None:
        try:
            changed = self._changed(direction, data)
        except MutationError as error:
            self.left(direction, str(error))
            return None
        if changed == data:
            self._positions[direction] += 1
            return None
        self._tell(direction, self._next(direction), "")
        return changed

    def left(self, direction: Direction, why: str) -> None:
        self._tell(direction, self._next(direction), why)

    async def _wait(self) -> None:
        ends_at = monotonic() + self._rules.delay_s
        if self._lacks_schema() and self._schemas is not None:
            with contextlib.suppress(TimeoutError):
                async with FairTimeout(SCHEMA_S):
                    await self._schemas.schema()
        await asyncio.sleep(max(0.0, ends_at - monotonic()))

    def _lacks_schema(self) -> bool:
        if self._schemas is None or not any(map(self._rules.edits, Direction)):
            return False
        return self._schemas.current(self._method) is None

    def _changed(self, direction: Direction, data: bytes) -> bytes:
        schema = None if self._schemas is None else self._schemas.current(self._method)
        method = None if schema is None else schema.method(self._method)
        if method is None:
            raise MutationError("the method's types are not known")
        return self._rules.message(direction, data, new_message(method.message(direction)))

    def _next(self, direction: Direction) -> int:
        position = self._positions[direction]
        self._positions[direction] = position + 1
        return position

    def _tell(self, direction: Direction, position: int | None, problem: str) -> None:
        self._events.mutated(Altered(self._call, monotonic(), direction, position, problem), self._method)
