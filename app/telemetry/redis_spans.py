"""A span for each command that is sent to Redis within a trace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from opentelemetry.trace import SpanKind, Tracer
from opentelemetry.util.types import AttributeValue
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import AskError, MovedError, NoScriptError

from app.telemetry.tracing import is_traced, span

MAX_KEYS = 8
"""Keys of one command that its span names."""
MAX_KEY = 256
"""Characters of a key that it shows."""
_KEYED = frozenset({"GET", "UNLINK", "DEL", "EXISTS", "PTTL"})
"""Commands whose arguments are keys, all of them."""
_ANSWERS = (NoScriptError, MovedError, AskError)
"""What sends a command elsewhere, or asks for it in full."""


def traced_redis(tracer: Tracer, scripts: Mapping[str, str]) -> type[Redis]:
    """Clients whose commands are spans, by the semantic conventions for databases; `scripts` are texts by name.

    A span holds the command, the script's name and the keys, and no other argument. Outside a trace, as for health
    checks and the cluster's watch, there are none. Each is what went to one server: a command that a cluster's node
    redirects is two, and a script that a server does not know yet three.
    """
    names = {_digest(text): name for name, text in scripts.items()}
    return type("TracedRedis", (_TracedRedis,), {"tracer": tracer, "script_names": names})


class _TracedRedis(Redis):
    tracer: ClassVar[Tracer]
    script_names: ClassVar[Mapping[str, str]]

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with _command(self, args) if is_traced() else nullcontext():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        pipeline = _TracedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline.made_by = self
        return pipeline


class _TracedPipeline(Pipeline):
    made_by: _TracedRedis

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if not is_traced() or not self.command_stack:
            return await super().execute(raise_on_error)
        attributes: dict[str, AttributeValue] = {"db.operation.batch.size": len(self.command_stack)}
        with _span(self.made_by, "PIPELINE", "PIPELINE", attributes):
            return await super().execute(raise_on_error)


def _command(client: _TracedRedis, args: Sequence[Any]) -> AbstractContextManager[object]:
    operation = name = _shown(args[0]).upper()
    keys: Sequence[Any] = ()
    attributes: dict[str, AttributeValue] = {}
    if operation in ("EVALSHA", "EVAL"):
        keys = args[3 : 3 + int(args[2])]
        script = _shown(args[1])
        known = client.script_names.get(script if operation == "EVALSHA" else _digest(script))
        if known is not None:
            name = f"{operation} {known}"
            attributes["db.stored_procedure.name"] = known
    elif operation in _KEYED:
        keys = args[1:]
    attributes["db.query.text"] = " ".join([name, *(_shown(key)[:MAX_KEY] for key in keys[:MAX_KEYS])])
    return _span(client, name, operation, attributes)


def _span(
    client: _TracedRedis, name: str, operation: str, attributes: dict[str, AttributeValue]
) -> AbstractContextManager[object]:
    where = client.connection_pool.connection_kwargs
    attributes |= {"db.system.name": "redis", "db.operation.name": operation, "db.namespace": str(where.get("db", 0))}
    if "host" in where:
        attributes |= {"server.address": where["host"], "server.port": where.get("port", 6379)}
    return span(client.tracer, name, SpanKind.CLIENT, attributes, answers=_ANSWERS)


def _digest(script: str) -> str:
    """What Redis knows a script by."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _shown(argument: Any) -> str:
    return argument.decode(errors="replace") if isinstance(argument, bytes) else str(argument)
