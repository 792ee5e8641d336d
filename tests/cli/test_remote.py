"""`get`, `watch` and `import` as a person runs them, against a service that answers as told."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
import termios
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import trustme
from typer.testing import CliRunner

from app.cli.failure import CommandError
from app.cli.program import program
from app.proto.template.v1 import template_pb2 as pb
from tests.client.fake_service import Answer, Context, FakeService, details, failing, giving, serving, state, telling
from tests.faults.polling import until

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    status: int
    out: str
    err: str


async def started(
    folder: Path, *arguments: str, stdin: int = asyncio.subprocess.PIPE, **environment: Any
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200", **environment},
        stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def ended(folder: Path, *arguments: str, stdin: bytes = b"", **environment: Any) -> Ended:
    process = await started(folder, *arguments, **environment)
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    assert b"Traceback" not in err
    return Ended(process.returncode, out.decode(), err.decode())


def at(service: FakeService) -> list[str]:
    return ["--target", f"127.0.0.1:{service.port}"]


async def test_get_prints_the_template_for_people_and_as_json(tmp_path: Path) -> None:
    answer = details(7, body="Dear {{name}},\n\x1b[2J你好", source=pb.SOURCE_L1)
    answer.age.FromMilliseconds(250)
    async with serving(FakeService(answers=[giving(answer)])) as service:
        people, machine = await asyncio.gather(
            ended(tmp_path, "get", "7", *at(service), http_proxy="http://127.0.0.1:1", grpc_proxy="http://127.0.0.1:1"),
            ended(tmp_path, "get", "7", "--json", *at(service), "--token-env", "TOKEN", TOKEN="s3cret"),
        )
    assert (people.status, people.err) == (0, "")
    assert people.out == (
        "id       7\nname     welcome\nversion  3, of 2026-11-21 03:04:05 UTC\nsource   l1, 0.25 s old\n\n"
        "Dear {{name}},\n\\x1b[2J你好\n"
    )
    assert (machine.status, machine.err) == (0, "")
    assert json.loads(machine.out) == {
        "id": 7,
        "name": "welcome",
        "body": "Dear {{name}},\n\x1b[2J你好",
        "version": 3,
        "updated_at": "2026-11-21T03:04:05.678901Z",
        "source": "l1",
        "age_s": 0.25,
    }
    assert sorted(str(each.get("authorization")) for each in service.metadata) == ["Bearer s3cret", "None"]


async def test_a_call_that_fails_is_one_line_and_status_1(tmp_path: Path) -> None:
    answers = [failing(grpc.StatusCode.NOT_FOUND, "there is no template with id 7")]
    async with serving(FakeService(answers=answers)) as service:
        missing = await ended(tmp_path, "get", "7", *at(service))
    assert missing == (1, "", "error: there is no template with id 7 (NOT_FOUND)\n")
    gone = await ended(tmp_path, "get", "7", *at(service))
    assert (gone.status, gone.out) == (1, "")
    assert gone.err.startswith(f"error: the service at 127.0.0.1:{service.port} is unavailable: ")
    assert gone.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["get", "0"], "greater than or equal to 1"),
        (["get", "9223372036854775808"], "less than or equal to"),
        (["get", "one"], "integer"),
        (["watch"], "Missing argument"),
        (["get", "1", "--targte", "x:1"], "--target"),
        (["get", "1", "--target", "http://localhost:50051"], "the target must be HOST:PORT"),
        (["get", "1", "--timeout", "0"], "--timeout must be above 0"),
        (["get", "1", "--timeout", "nan"], "--timeout must be above 0"),
        (["get", "1", "--token-env", "NOT_SET"], "names NOT_SET, which is not set"),
        (["get", "1", "--target", "10.0.0.1:1", "--token-env", "HOME"], "token"),
        (["get", "1", "--tls-ca", "missing.pem"], "cannot read missing.pem: No such file"),
        (["get", "1", "--cert", "missing.pem"], "cannot read missing.pem: No such file"),
        (["import", "missing.ndjson"], "cannot read missing.ndjson: No such file"),
        (["import", "bad.ndjson"], "bad.ndjson, line 2: has no body; nothing was imported"),
    ],
)
def test_what_makes_no_sense_is_said_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("bad.ndjson").write_text('{"name": "a", "body": "b"}\n{"name": "c"}\n')
    done = CliRunner().invoke(program, arguments)
    if isinstance(done.exception, CommandError):
        assert done.exception.status == 2
        assert words in str(done.exception)
    else:
        assert done.exit_code == 2
        assert words in done.stderr
    assert done.stdout == ""


async def test_get_goes_over_mtls_and_says_why_where_it_cannot(tmp_path: Path) -> None:
    authority = trustme.CA()
    own, mine = authority.issue_cert("127.0.0.1"), authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair = (own.private_key_pem.bytes(), own.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    service = FakeService(answers=[giving(details())])
    async with serving(service, credentials=credentials):
        mutual = ["--tls-ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"]
        trusted, stranger = await asyncio.gather(
            ended(tmp_path, "get", "1", *at(service), *mutual), ended(tmp_path, "get", "1", *at(service), "--tls")
        )
    assert (trusted.status, trusted.err) == (0, "")
    assert (stranger.status, stranger.out, stranger.err.count("\n")) == (1, "", 1)
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.err
    assert service.calls == 1


def never(begun: asyncio.Event, left: asyncio.Event) -> Answer:
    async def answer(request: Any, context: Context) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    return answer


async def test_ctrl_c_ends_what_waits_for_the_service_and_the_call_with_it(tmp_path: Path) -> None:
    content = '{"name": "a", "body": "b"}\n' * 101
    (tmp_path / "templates.ndjson").write_text(content)
    for command in (["get", "1", "--timeout", "60"], ["import", "templates.ndjson"]):
        begun, left = asyncio.Event(), asyncio.Event()

        async with serving(FakeService(answers=[never(begun, left)])) as service:
            running = await started(tmp_path, *command, *at(service))
            await asyncio.wait_for(begun.wait(), 60)
            running.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(running.communicate(), 30)
            await asyncio.wait_for(left.wait(), 30)
        assert (running.returncode, out, err) == (130, b"", b"")


async def test_a_running_stack_in_this_folder_is_asked_without_being_named(tmp_path: Path) -> None:
    async with serving(FakeService(answers=[giving(details())])) as service:
        (tmp_path / "out").mkdir()
        said = {"pid": os.getpid(), "grpc_target": f"127.0.0.1:{service.port}"}
        (tmp_path / "out" / "stack.json").write_text(json.dumps(said))
        assert (await ended(tmp_path, "get", "1")).status == 0


async def test_watch_prints_a_line_as_each_change_comes_until_ctrl_c(tmp_path: Path) -> None:
    changes = [state(1, 3), state(2, 0, gone=True), state(1, 6, skipped=2), state(1, 7, gone=True)]
    async with serving(FakeService(answers=[telling(*changes)])) as service:
        watching = await started(tmp_path, "watch", "1", "2", *at(service))
        assert watching.stdout is not None
        lines = [await asyncio.wait_for(watching.stdout.readline(), 60) for _ in changes]
        watching.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(watching.communicate(), 30)
    assert b"".join(lines).decode() == (
        "template 1: version 3, n\ntemplate 2: no such template yet\n"
        "template 1: version 6, n (2 before it left out)\ntemplate 1: version 7, deleted\n"
    )
    assert (watching.returncode, out, err) == (130, b"", b"")
    assert service.requests == [pb.WatchTemplatesRequest(ids=[1, 2])]


async def test_watch_goes_on_without_a_word_when_the_service_is_back(tmp_path: Path) -> None:
    first, second = (
        FakeService(answers=[telling(state(1, 3))]),
        FakeService(answers=[telling(state(1, 3), state(1, 5))]),
    )
    async with serving(first):
        watching = await started(tmp_path, "watch", "1", *at(first))
        assert watching.stdout is not None
        before = await asyncio.wait_for(watching.stdout.readline(), 60)
    async with serving(second, f"127.0.0.1:{first.port}"):
        after = await asyncio.wait_for(watching.stdout.readline(), 60)
        watching.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(watching.communicate(), 30)
    assert (before, err) == (b"template 1: version 3, n\n", b"")
    assert after == b"template 1: version 5, n\n"


async def test_watch_ends_without_a_word_when_nobody_reads_it_any_more(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def answer(request: Any, context: Context) -> None:
        await context.write(state(1, 1))
        await go.wait()
        for version in range(2, 50):
            await context.write(state(1, version))
        await asyncio.Event().wait()

    async with serving(FakeService(answers=[answer])) as service:
        process = await asyncio.create_subprocess_shell(
            f'{sys.executable} -m app watch 1 --json --target 127.0.0.1:{service.port} | head -n 1',
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        go.set()
        _, err = await asyncio.wait_for(process.communicate(), 30)
    assert json.loads(line)["version"] == 1
    assert err == b""


@pytest.mark.parametrize("source", ["file", "-"])
async def test_import_sends_all_of_a_file_or_of_standard_input_and_sums_it_up(tmp_path: Path, source: str) -> None:
    got: list[pb.NewTemplate] = []

    async def answer(requests: AsyncIterator[pb.ImportTemplatesRequest], context: Context) -> Any:
        got.extend([template async for request in requests for template in request.templates])
        return pb.ImportTemplatesResponse(imported=len(got), bytes=9, first_id=221, last_id=470)

    content = "".join(json.dumps({"name": f"n{n}", "body": "b"}) + "\n" for n in range(250)).encode()
    (tmp_path / "templates.ndjson").write_bytes(content)
    async with serving(FakeService(answers=[answer])) as service:
        if source == "-":
            done = await ended(tmp_path, "import", "-", "--json", *at(service), stdin=content)
            assert json.loads(done.out) == {"imported": 250, "bytes": 9, "first_id": 221, "last_id": 470}
        else:
            done = await ended(tmp_path, "import", "templates.ndjson", *at(service))
            assert done.out == "templates imported: 250, 9 bytes, ids from 221 to 470\n"
    assert (done.status, done.err) == (0, "")
    assert [template.name for template in got] == [f"n{n}" for n in range(250)]


async def test_nothing_is_sent_of_an_import_with_a_wrong_line_anywhere(tmp_path: Path) -> None:
    content = b'{"name": "a", "body": "b"}\n' * 1_000 + b"{}\n"
    async with serving(FakeService()) as service:
        done = await ended(tmp_path, "import", "-", *at(service), stdin=content)
        assert (done.status, done.out) == (2, "")
        assert done.err == "error: standard input, line 1001: has no body and no name; nothing was imported\n"
        assert service.calls == 0


async def test_an_import_whose_outcome_is_not_known_says_how_to_try_it_again_safely(
    tmp_path: Path,
) -> None:
    content = b'{"name": "a", "body": "b"}\n'
    async with serving(FakeService(answers=[failing(grpc.StatusCode.UNAVAILABLE, "restarting")])) as service:
        done = await ended(tmp_path, "import", "-", "--request-id", "mine", *at(service), stdin=content)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: restarting (UNAVAILABLE); whether it was imported is not known: ")
    assert done.err.endswith("add --request-id mine\n")


async def test_ctrl_c_while_import_waits_for_input_ends_it_at_once(tmp_path: Path) -> None:
    ours, theirs = os.pipe()
    importing = await started(tmp_path, "import", "-", "--target", "127.0.0.1:1", stdin=ours)
    os.close(ours)
    os.write(theirs, b'{"name"')

    def unread() -> int:
        return int(array("i", fcntl.ioctl(theirs, termios.FIONREAD, b"\0\0\0\0"))[0])

    await until(lambda: unread() == 0, "the command reads its input", 60)
    importing.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(importing.communicate(), 30)
    os.close(theirs)
    assert (importing.returncode, out, err) == (130, b"", b"")
