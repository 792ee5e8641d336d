"""The spans of Redis' commands and PostgreSQL's statements, on the real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, Tracer
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

from app.cache.connection import connect
from app.storage.postgres import Database
from app.storage.spans import MAX_TEXT, traced_session
from app.telemetry.redis_spans import MAX_KEY, MAX_KEYS, traced_redis
from app.telemetry.tracing import span
from tests.storage.conftest import SETTINGS

ECHO = "return ARGV[1]"


class Recorder:
    """Spans that have ended, `made` since the last look."""

    def __init__(self) -> None:
        self._kept = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.tracer: Tracer = provider.get_tracer("test")

    def made(self) -> list[tuple[str, dict[str, Any], bool]]:
        spans = self._kept.get_finished_spans()
        self._kept.clear()
        return [(each.name, dict(each.attributes or {}), each.status.status_code is StatusCode.ERROR) for each in spans]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def redis(redis_url: str, recorder: Recorder) -> AsyncIterator[Any]:
    client = connect(redis_url, connections=2, timeout_s=5.0, client=traced_redis(recorder.tracer, {"echo": ECHO}))
    assert isinstance(client, Redis)
    yield client
    await client.aclose()


@pytest.fixture
async def database(database_url: str, recorder: Recorder) -> AsyncIterator[Database]:
    opened = await Database.connect(database_url, **SETTINGS, session=traced_session(recorder.tracer, database_url))
    yield opened
    await opened.close(2.0)


async def test_commands_outside_a_trace_make_no_spans(redis: Any, database: Database, recorder: Recorder) -> None:
    await redis.ping()
    await redis.pipeline().get("a").execute()
    await database.ping()
    assert recorder.made() == []


async def test_a_command_shows_its_keys_and_no_other_argument(redis: Any, recorder: Recorder) -> None:
    with span(recorder.tracer, "request"):
        await redis.set("key", "secret", ex=10)
        await redis.get(b"k\xff")
        await redis.unlink(*(f"{number}" * 1000 for number in range(MAX_KEYS + 1)))
        await redis.get("")
    *commands, _ = recorder.made()
    shown = [attributes["db.query.text"] for _, attributes, _ in commands]
    assert shown == [
        "SET",
        "GET k\ufffd",
        " ".join(["UNLINK", *(str(number) * MAX_KEY for number in range(MAX_KEYS))]),
        "GET ",
    ]
    name, attributes, failed = commands[0]
    where = redis.connection_pool.connection_kwargs
    assert (name, failed) == ("SET", False)
    assert attributes == {
        "db.query.text": "SET",
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "db.namespace": "0",
        "server.address": where["host"],
        "server.port": where["port"],
    }


async def test_a_script_goes_by_its_name_and_one_that_the_server_has_yet_to_learn_is_no_error(
    redis: Any, recorder: Recorder
) -> None:
    await redis.script_flush()
    script = redis.register_script(ECHO)
    with span(recorder.tracer, "request"):
        assert await script(keys=["k1", "k2"], args=["secret"]) == b"secret"
        await redis.eval(ECHO, 1, "k3", "secret")
        await redis.eval("return 1", 0)
        with pytest.raises(NoScriptError):
            await redis.evalsha("0" * 40, 0)
    *commands, _ = recorder.made()
    assert [(name, attributes["db.query.text"], failed) for name, attributes, failed in commands] == [
        ("EVALSHA echo", "EVALSHA echo k1 k2", False),
        ("SCRIPT LOAD", "SCRIPT LOAD", False),
        ("EVALSHA echo", "EVALSHA echo k1 k2", False),
        ("EVAL echo", "EVAL echo k3", False),
        ("EVAL", "EVAL", False),
        ("EVALSHA", "EVALSHA", False),
    ]
    assert commands[0][1]["db.stored_procedure.name"] == "echo"


async def test_an_error_of_redis_is_one_by_its_class(redis: Any, recorder: Recorder) -> None:
    with span(recorder.tracer, "request"):
        await redis.set("text", "secret")
        with pytest.raises(ResponseError):
            await redis.incr("text")
    _, (name, attributes, failed), (_, _, request_failed) = recorder.made()
    assert (name, attributes["error.type"], failed, request_failed) == ("INCRBY", "ResponseError", True, False)


async def test_a_pipeline_is_one_span_with_the_number_of_its_commands(redis: Any, recorder: Recorder) -> None:
    with span(recorder.tracer, "request"):
        pipeline = redis.pipeline(transaction=False)
        assert await pipeline.execute() == []
        pipeline.set("key", "secret").get("key")
        assert await pipeline.execute() == [True, b"secret"]
    (name, attributes, failed), _ = recorder.made()
    assert (name, attributes["db.operation.batch.size"], failed) == ("PIPELINE", 2, False)
    assert "secret" not in str(attributes)


async def test_each_way_to_a_statement_is_a_span_with_its_text_and_none_of_its_arguments(
    database: Database, recorder: Recorder
) -> None:
    with span(recorder.tracer, "request"):
        async with database.connection() as connection:
            await connection.execute("SELECT\n    $1::text", "secret")
            await connection.fetch("SELECT 1 AS one")
            await connection.fetchrow("SELECT 2")
            await connection.fetchval(f"SELECT '{'x' * MAX_TEXT}'")
            async with connection.transaction():
                await connection.executemany("SELECT $1::text", [("secret",), ("secret",)])
    *statements, _ = recorder.made()
    assert [name for name, _, _ in statements] == ["SELECT"] * 4 + ["BEGIN", "SELECT", "COMMIT"]
    texts = [attributes["db.query.text"] for _, attributes, _ in statements]
    assert texts[:3] == ["SELECT $1::text", "SELECT 1 AS one", "SELECT 2"]
    assert len(texts[3]) == MAX_TEXT
    assert "secret" not in str(statements)
    assert {attributes["db.system.name"] for _, attributes, _ in statements} == {"postgresql"}
    assert all({"server.address", "server.port", "db.namespace"} < set(each) for _, each, _ in statements)


async def test_a_statement_that_is_refused_has_its_sqlstate_and_not_the_servers_words(
    database: Database, recorder: Recorder
) -> None:
    with span(recorder.tracer, "request"):
        async with database.connection() as connection:
            with pytest.raises(asyncpg.InvalidTextRepresentationError, match="secret"):
                await connection.execute("SELECT 'secret'::text::int")
    (name, attributes, failed), _ = recorder.made()
    assert (name, failed, attributes["db.response.status_code"]) == ("SELECT", True, "22P02")
    assert attributes["error.type"] == "InvalidTextRepresentationError"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://u:secret@db:6000/app", {"db.namespace": "app", "server.address": "db", "server.port": 6000}),
        ("postgresql://db/app", {"db.namespace": "app", "server.address": "db", "server.port": 5432}),
        ("postgresql://one:1,two:2/app", {"db.namespace": "app"}),
    ],
)
def test_the_database_is_named_by_its_place_without_the_password(
    recorder: Recorder, url: str, place: dict[str, Any]
) -> None:
    session: Any = traced_session(recorder.tracer, url)
    assert session.place == {"db.system.name": "postgresql", **place}
