"""The client against the real service on real servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from app.client.endpoint import Endpoint
from app.client.errors import (
    AbortedError,
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from app.client.templates import TemplateClient
from tests.client.fake_service import to
from tests.client.line import Line
from tests.faults.in_process import served
from tests.faults.polling import until


@pytest.fixture
async def client(database_url: str, redis_url: str) -> AsyncIterator[TemplateClient]:
    async with (
        served(database_url, redis_url) as service,
        TemplateClient(f"127.0.0.1:{service.grpc_port}", timeout_s=30) as connected,
    ):
        yield connected


async def test_a_template_lives_from_its_creation_to_its_deletion(client: TemplateClient) -> None:
    made = await client.create("welcome", "Dear {{name}}")
    assert (made.name, made.body, made.version) == ("welcome", "Dear {{name}}", 1)
    renamed = await client.update(made.id, name="hello")
    assert (renamed.name, renamed.body, renamed.version) == ("hello", "Dear {{name}}", 2)
    emptied = await client.update(made.id, body="", expected_version=2)
    assert (emptied.name, emptied.body, emptied.version) == ("hello", "", 3)
    assert (await client.get(made.id)).template == emptied
    assert await client.delete(made.id, expected_version=3) == 4
    with pytest.raises(NotFoundError, match=f"no template with id {made.id}") as gone:
        await client.get(made.id)
    assert gone.value.reason == "TEMPLATE_NOT_FOUND"


async def test_what_the_service_refuses_comes_with_its_details(client: TemplateClient) -> None:
    made = await client.create("welcome", "")
    with pytest.raises(AbortedError):
        await client.update(made.id, name="x", expected_version=7)
    with pytest.raises(InvalidArgumentError) as invalid:
        await client.update(made.id, name=" ")
    assert [violation.description for violation in invalid.value.violations] == ["must not be blank"]
    with pytest.raises(InvalidArgumentError):
        await client.get(0)


async def test_a_write_given_the_same_request_id_again_is_done_once(client: TemplateClient) -> None:
    first = await client.create("once", "", request_id="the-same")
    assert await client.create("once", "", request_id="the-same") == first
    with pytest.raises(AlreadyExistsError):
        await client.create("another", "", request_id="the-same")


async def test_a_write_whose_answer_was_lost_is_told_and_was_done_once(database_url: str, redis_url: str) -> None:
    """The write is committed, its answer kept on the way, then the connection cut: gRPC sends the write again."""
    line = Line()
    async with served(database_url, redis_url) as service, line.to(service.grpc_port):
        direct = TemplateClient(f"127.0.0.1:{service.grpc_port}", timeout_s=30)
        async with direct, to(line, timeout_s=60) as client:
            earlier = await client.create("before", "")
            line.open.clear()
            writing = asyncio.create_task(client.update(earlier.id, name="after"))

            async def committed() -> bool:
                return (await direct.get(earlier.id)).template.version == 2

            await until(committed, "the write is committed", 30)
            assert not writing.done()
            line.cut()
            line.open.set()
            assert (await writing).version == 2
            assert (await direct.get(earlier.id)).template.version == 2


async def test_a_watch_sees_every_change_across_a_restart_of_the_service(database_url: str, redis_url: str) -> None:
    async with served(database_url, redis_url) as service:
        port = service.grpc_port
        client = await TemplateClient(f"127.0.0.1:{port}", timeout_s=30).__aenter__()
        made = await client.create("watched", "one")
        watch = client.watch([made.id])
        assert (await anext(watch)).template == made
        following = asyncio.create_task(anext(watch))
        changed = await client.update(made.id, body="two")
        assert (await asyncio.wait_for(following, 30)).template == changed
        following = asyncio.create_task(anext(watch))
    async with served(database_url, redis_url, grpc_port=port) as service:
        async with TemplateClient(f"127.0.0.1:{port}", timeout_s=30) as other:

            async def is_back() -> bool:
                with contextlib.suppress(UnavailableError):
                    await other.get(made.id)
                    return True
                return False

            await until(is_back, "the service is back", 30)
            last = await other.update(made.id, body="three")
        news = await asyncio.wait_for(following, 60)
        while news.version < last.version:  # it may have been watching again before the change, or after it
            news = await asyncio.wait_for(anext(watch), 30)
        assert news.template == last
        following = asyncio.create_task(anext(watch))
        await client.delete(made.id)
        gone = await asyncio.wait_for(following, 30)
        assert (gone.template, gone.version) == (None, last.version + 1)
        await watch.aclose()
        await client.__aexit__(None, None, None)


async def test_an_import_is_whole_or_not_at_all(client: TemplateClient) -> None:
    imported = await client.import_templates((f"imported {n}", "body") for n in range(250))
    assert (imported.count, imported.bytes > 250 * 4) == (250, True)
    assert (await client.get(imported.last_id)).template.name.startswith("imported")

    def one_is_blank() -> Iterator[tuple[str, str]]:
        for n in range(300):
            yield (" " if n == 217 else f"never {n}", "body")

    with pytest.raises(InvalidArgumentError, match=r"templates\[217\].name"):
        await client.import_templates(one_is_blank())

    def breaks_off() -> Iterator[tuple[str, str]]:
        yield from ((f"never {n}", "body") for n in range(300))
        raise KeyError("the source is broken")

    with pytest.raises(KeyError, match="the source is broken"):
        await client.import_templates(breaks_off())
    again = await client.import_templates([("after", "")])
    async with aclosing(client.watch([again.first_id])) as watch:
        assert (await anext(watch)).version == 1
    names = [await _name(client, n) for n in range(imported.last_id + 1, again.last_id + 1)]
    assert [name for name in names if name] == ["after"]


async def _name(client: TemplateClient, template_id: int) -> str:
    try:
        return (await client.get(template_id)).template.name
    except NotFoundError:
        return ""


async def test_the_example_in_the_documents_runs(
    database_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(example, "docs/client.md", "exec"), names)
    async with served(database_url, redis_url) as service:
        await names["main"](f"127.0.0.1:{service.grpc_port}")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Dear {{name}} ")
    assert said[1].startswith("ABORTED: ")
    assert said[2].startswith("2 Template(")


async def test_a_service_that_asks_for_a_token_gets_it(database_url: str, redis_url: str) -> None:
    async with served(database_url, redis_url, grpc_tokens="me:s3cret-s3cret-s3cret-s3cret-s3cret") as service:
        target = f"127.0.0.1:{service.grpc_port}"
        async with TemplateClient(Endpoint(target, token="s3cret-s3cret-s3cret-s3cret-s3cret")) as client:
            assert (await client.get(1)).template.id == 1
        for token in (None, "wrong"):
            async with TemplateClient(Endpoint(target, token=token)) as stranger:
                with pytest.raises(UnauthenticatedError):
                    await stranger.get(1)
