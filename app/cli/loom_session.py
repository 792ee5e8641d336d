"""What Loom does with a session file once it is recorded: replay it, or export it."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import uvloop
from rich.console import Console
from rich.table import Table

from app.cli.failure import CommandError
from app.cli.remote import printable
from app.concurrency.breaker import CircuitBreaker
from app.loom import tunnel
from app.loom.bootstrap import Config
from app.loom.comparison import Comparison, compare
from app.loom.decoding import Decoder, exported, with_bytes
from app.loom.grpcurl import variable
from app.loom.probes import Health
from app.loom.proxy.link import GuardedUpstream
from app.loom.proxy.upstream import Upstream
from app.loom.recording.record import Record
from app.loom.recording.session import Loaded, SessionError, load, session_path
from app.loom.replay import ReplayError, replay, secrets_of
from app.loom.schema.errors import SchemaError, TranscodeError
from app.loom.schema.reflection import ReflectionClient
from app.loom.schema.schema import Schema

SESSIONS: Final = Path(".loom", "sessions")
"""In the user's home."""
SHOWN_DIFFERENCES: Final = 5
"""Of one call, on the terminal."""
SHOWN_CHARACTERS: Final = 100

_NAME: Final = re.compile(r"[0-9a-z_.-]{1,256}")
_MARKS: Final = {"same": "green", "body": "yellow", "status": "red", "failed": "red"}


@dataclass(slots=True)
class Counts:
    """Of one method, or of all."""

    same_status: int = 0
    same_body: int = 0
    """With the same status too."""
    differing: int = 0
    failed: int = 0
    """Could not be made again."""

    @property
    def calls(self) -> int:
        return self.same_body + self.differing + self.failed


@dataclass(slots=True)
class _Report:
    console: Console
    methods: dict[str, Counts] = field(default_factory=dict)
    total: Counts = field(default_factory=Counts)

    def compared(self, record: Record, found: Comparison) -> None:
        for counts in (self.total, self.methods.setdefault(record.started.method, Counts())):
            counts.same_status += found.same_status
            counts.same_body += found.is_same
            counts.differing += not found.is_same
        mark = "same" if found.is_same else "body" if found.same_status else "status"
        self._line(mark, record, "")
        for each in () if found.is_same else found.differences[:SHOWN_DIFFERENCES]:
            self._say(f"        {each.where}: {_short(each.before)} → {_short(each.after)}")
        if not found.is_same and len(found.differences) > SHOWN_DIFFERENCES:
            self._say(f"        and {len(found.differences) - SHOWN_DIFFERENCES} more")

    def failed(self, record: Record, why: str) -> None:
        for counts in (self.total, self.methods.setdefault(record.started.method, Counts())):
            counts.failed += 1
        self._line("failed", record, f": {why}")

    def close(self, skipped: int, target: str) -> None:
        table = Table(box=None, pad_edge=False)
        table.add_column("method", overflow="fold")
        for name in ("calls", "same status", "same body", "differing", "not replayed"):
            table.add_column(name, justify="right")
        rows = [*sorted(self.methods.items()), (f"all, at {target}", self.total)]
        for name, counts in rows:
            figures = (counts.calls, counts.same_status, counts.same_body, counts.differing, counts.failed)
            table.add_row(printable(name), *map(str, figures))
        self.console.print()
        self.console.print(table, markup=False)
        if skipped:
            self._say(f"lines skipped: {skipped}")

    def _line(self, mark: str, record: Record, more: str) -> None:
        self.console.print(f"{mark:7}", style=_MARKS[mark], end=" ")
        self._say(f"{record.started.method}{more}")

    def _say(self, text: str) -> None:
        self.console.print(printable(text).replace("\n", "\\n"), markup=False, soft_wrap=True)


def given_metadata(texts: Sequence[str]) -> dict[str, str]:
    """By name, of `name=value`. Raises `CommandError`; values may be secrets, and are not repeated."""
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name = name.strip().lower()
        if not sign or not _NAME.fullmatch(name) or not (value.isascii() and (value.isprintable() or not value)):
            raise CommandError("--metadata: NAME=VALUE is wanted, in ASCII, the name as metadata has it", status=2)
        found[name] = value
    return found


def replay_file(what: str, config: Config, given: Mapping[str, str], *, no_color: bool, as_json: bool) -> bool:
    """Make a session's calls again, oldest first, one at a time. Returns whether all came out the same."""
    loaded = _loaded(what)
    if not loaded.records:
        raise CommandError(f"{what}: no call in it")
    secrets = {name for record in loaded.records for name in secrets_of(record)}
    known = {**given, **{name: _secret(name) for name in sorted(secrets - given.keys())}}
    report = _Report(Console(no_color=no_color or None, highlight=False, quiet=as_json))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_replay_all(loaded, config, known, report))
    counts = report.total
    if as_json:
        document = {
            "calls": counts.calls,
            "same_status": counts.same_status,
            "same_body": counts.same_body,
            "differing": counts.differing,
            "not_replayed": counts.failed,
            "lines_skipped": len(loaded.problems),
        }
        print(json.dumps(document))
    else:
        report.close(len(loaded.problems), str(config.backend))
    return counts.same_body == counts.calls


def _secret(name: str) -> str:
    """What was redacted: from the environment, else asked for on a terminal. Raises `CommandError`."""
    value = os.environ.get(variable(name.encode("latin-1")))
    if value is not None:
        return value
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise CommandError(
            f"{name} was redacted when the calls were recorded: give --metadata {name}=VALUE or "
            f"${variable(name.encode('latin-1'))}; --metadata {name}= leaves it out",
            status=2,
        )
    try:
        value = getpass.getpass(f"{name} (it was redacted; nothing leaves it out): ", sys.stderr)
    except (EOFError, KeyboardInterrupt):
        raise CommandError(f"{name} was redacted, and is not given", status=2) from None
    return given_metadata([f"{name}={value}"])[name]


def export(what: str, otherwise: Schema | None) -> None:
    """Print a session, one line of JSON a call, its messages decoded."""
    loaded = _loaded(what)
    decoder = _decoder(loaded, otherwise)
    try:
        for record in loaded.records:
            sys.stdout.write(json.dumps(exported(record, decoder)) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _replay_all(loaded: Loaded, config: Config, given: Mapping[str, str], report: _Report) -> None:
    limits = config.limits
    upstream = Upstream(
        config.backend.host,
        config.backend.port,
        timeout_s=limits.dial_s,
        handshake_s=limits.handshake_s,
        tls=config.backend_tls,
    )
    failure = await Health(GuardedUpstream(upstream, CircuitBreaker())).failure()
    if failure is not None:
        raise CommandError(f"the backend can't be reached: {failure}")
    decoder = _decoder(loaded, config.capture.schema)
    if any(record.texts and decoder.schema(record) is None for record in loaded.records):
        decoder = _decoder(loaded, await _reflected(upstream, config.capture.reflect_metadata))
    async with tunnel.blocking_channel(upstream, config.authority) as channel:
        for record in loaded.records:
            await _replay_one(channel, record, given, decoder, report)


async def _reflected(upstream: Upstream, metadata: Sequence[tuple[str, str]]) -> Schema | None:
    """What the backend says of its messages: for those that were recorded as JSON alone."""
    try:
        return await ReflectionClient(lambda: tunnel.channel(upstream), metadata=metadata).fetch()
    except SchemaError as error:
        print(f"messages recorded as JSON alone can't be sent: {printable(str(error))}", file=sys.stderr)
        return None


async def _replay_one(
    channel: grpc.Channel, record: Record, given: Mapping[str, str], decoder: Decoder, report: _Report
) -> None:
    try:
        with contextlib.suppress(TranscodeError):  # `replay` says so where it needs them
            record = with_bytes(record, decoder.schema(record))
        again = await replay(channel, record, given)
    except ReplayError as error:
        report.failed(record, str(error))
    else:
        report.compared(record, compare(record, again, decoder))


def _loaded(what: str) -> Loaded:
    """A session by its name, or a file; what can't be read of it is told."""
    try:
        path = Path(what)
        if not path.is_file():
            folder = Path.home() / SESSIONS
            with contextlib.suppress(SessionError):  # no name, so none of them
                path = session_path(folder, what)
            if not path.is_file():
                raise CommandError(f"{what!r} is neither a file nor a session in {folder}", status=2)
        loaded = load(path, sys.maxsize)
    except SessionError as error:
        raise CommandError(str(error), status=2) from error
    for problem in loaded.problems:
        print(f"skipped: {printable(problem)}", file=sys.stderr)
    return loaded


def _decoder(loaded: Loaded, otherwise: Schema | None) -> Decoder:
    schemas = {}
    for data in loaded.schemas:
        try:
            schema = Schema.parse(data)
        except SchemaError as error:
            print(f"skipped: a schema: {error}", file=sys.stderr)
        else:
            schemas[schema.hash] = schema
    # Its first calls may have ended before their schema had come: the newest of the session is the best guess.
    newest = next(reversed(schemas.values()), None)
    return Decoder(schemas.get, otherwise or newest)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
