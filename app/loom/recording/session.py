"""The session file: every call that has ended, one line each, outliving the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.loom.call import StreamKind
from app.loom.recording.lines import MAX_LINE_BYTES, LineError, from_line, to_line, to_pieces, with_schema
from app.loom.recording.record import Record

MAX_FILE_BYTES: Final = 64 << 20
"""The file is rotated when it is larger."""
MAX_FILES: Final = 5
"""The file and those that were rotated away, `NAME.1.jsonl` the newest of them."""
FLUSH_S: Final = 0.1
"""Records are written that long after their end at the latest, where the disk keeps up."""
MAX_PENDING: Final = 20_000
MAX_PENDING_BYTES: Final = 64 << 20
"""Records that wait for the disk; those past it are dropped, and counted."""
INLINE_BYTES: Final = 64 << 10
"""Records of more, by estimate, are made a line by the thread that writes."""
CLOSE_TIMEOUT_S: Final = 5.0

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

logger = logging.getLogger(__name__)


class SessionError(Exception):
    """The session file cannot be used; the text names it and says why."""


def session_path(folder: Path, name: str) -> Path:
    """Where the session of this name is kept. Raises `SessionError` for a name that is none."""
    if not _NAME.fullmatch(name):
        raise SessionError(f"{name!r} is no session's name: letters, digits, '.', '_' and '-', 100 at most")
    return folder / f"{name}.jsonl"


@dataclass(slots=True)
class Loaded:
    """What a session file held."""

    records: list[Record]
    """Oldest first."""
    schemas: list[bytes]
    """Serialised descriptor sets, oldest first."""
    problems: list[str]
    """One line for each line that was skipped."""


class _Newest:
    """At most so many records and bytes, by estimate."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self.records: deque[Record] = deque()
        self._most = most
        self._room = most_bytes

    def add(self, record: Record) -> None:
        self.records.append(record)
        self._room -= record.size_bytes
        while len(self.records) > self._most or (self._room < 0 and self.records):
            self._room += self.records.popleft().size_bytes


def load(path: Path, most: int, most_bytes: int = sys.maxsize) -> Loaded:
    """The newest `most` records of a session and of what was rotated away, and of these no more than `most_bytes`, by
    estimate. A missing file is an empty one.

    Lines that are torn or are no records are skipped and reported, nothing else is. Raises `SessionError` where a file
    cannot be read.
    """
    found = Loaded([], [], [])
    newest = _Newest(most, most_bytes)
    for file in [*reversed([_rotated(path, number) for number in range(1, MAX_FILES)]), path]:
        try:
            with file.open("rb") as lines:
                number = 0
                while line := lines.readline(MAX_LINE_BYTES + 1):
                    number += 1
                    if len(line) > MAX_LINE_BYTES:
                        found.problems.append(f"{file}:{number}: longer than {MAX_LINE_BYTES >> 20} MiB")
                        while line and not line.endswith(b"\n"):
                            line = lines.readline(MAX_LINE_BYTES)
                    elif line.strip():
                        _take(line, f"{file}:{number}", newest, found)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SessionError(f"{file}: {error.strerror}") from error
    found.records = list(newest.records)
    return found


def _take(line: bytes, where: str, newest: _Newest, found: Loaded) -> None:
    try:
        record, _, schema = from_line(line)
    except LineError as error:
        torn = "" if line.endswith(b"\n") else ", torn off"
        found.problems.append(f"{where}: {error}{torn}")
        return
    newest.add(record)
    if schema is not None:
        found.schemas.append(schema)


class SessionFile:
    """A sink of the recorder. Writes in a thread of its own, batch by batch, so that the disk holds up nobody."""

    def __init__(
        self,
        path: Path,
        *,
        schema_set: Callable[[str], bytes | None] = lambda _hash: None,
        kind: Callable[[Record], StreamKind] = Record.kind,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        """Raises `SessionError` where the file can't be written. `schema_set` gives a schema's descriptors by hash."""
        self._path = path
        self._schema_set = schema_set
        self._kind = kind
        self._max_file_bytes = max_file_bytes
        self._pending: list[tuple[bytes | Record, str | None]] = []
        """Lines, or records that are still to be made one of, and the schemas that explain them."""
        self._pending_bytes = 0
        self._in_hand: asyncio.Task[None] | None = None
        self._told: set[str] = set()
        """Schemas that the current file holds."""
        self._writer = ThreadPoolExecutor(1, "loom-session")
        self.dropped = 0
        """Records that could not be written: the disk was too slow, or refused them."""
        self._complained = False
        self._is_torn = False
        """Whether the last line may be the beginning of one: the disk took no more."""
        try:
            for folder in (path.parent.parent, path.parent):  # what is made on the way gets the usual mode
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = _open(path)
        except OSError as error:
            raise SessionError(f"{path}: {error.strerror}") from error

    def finished(self, record: Record) -> None:
        if len(self._pending) >= MAX_PENDING or self._pending_bytes > MAX_PENDING_BYTES:
            self.dropped += 1
            return
        size = record.size_bytes
        # Made here, since it takes less than what two threads that want to run at once do; but large ones take longer.
        line = to_line(record, self._kind(record)) if size <= INLINE_BYTES else record
        self._pending.append((line, record.schema))
        self._pending_bytes += size
        if self._in_hand is None:
            self._in_hand = asyncio.get_running_loop().create_task(self._flush(), name="session-file")

    async def aclose(self) -> None:
        """What is pending is written, within a time."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._in_hand is not None:
                    await asyncio.shield(self._in_hand)
        except TimeoutError:
            self.dropped += len(self._pending)
            logger.warning("%s: the disk did not take the last %d records in time", self._path, len(self._pending))
        self._writer.submit(self._close)  # after what it is writing
        self._writer.shutdown(wait=False)

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            await asyncio.sleep(FLUSH_S)
            batch, self._pending, self._pending_bytes = self._pending, [], 0
            try:
                await loop.run_in_executor(self._writer, self._write, batch)
            except OSError as error:
                self.dropped += len(batch)
                self._told.clear()  # what was to tell of them may not be there
                if not self._complained:
                    self._complained = True
                    logger.warning("%s: records are not written: %s", self._path, error.strerror)
            else:
                self._complained = False
        self._in_hand = None

    def _write(self, batch: list[tuple[bytes | Record, str | None]]) -> None:
        for start in range(0, len(batch), 100):
            if os.fstat(self._file).st_size >= self._max_file_bytes:
                self._rotate()
            if self._is_torn:
                os.write(self._file, b"\n")
            self._is_torn = True
            for data in self._data(batch[start : start + 100]):
                view = memoryview(data)
                while view:
                    view = view[os.write(self._file, view) :]
            self._is_torn = False

    def _close(self) -> None:
        os.close(self._file)

    def _data(self, batch: list[tuple[bytes | Record, str | None]]) -> Iterator[bytes]:
        """What is to be written, short lines together and long ones in pieces."""
        lines: list[bytes] = []
        for made, schema in batch:
            if isinstance(made, bytes):
                lines.append(self._explained(made, schema))
                continue
            yield b"".join(lines)
            lines = []
            piece = b""
            for following in to_pieces(made, self._kind(made)):
                yield piece
                piece = following
            yield self._explained(piece, schema)
        yield b"".join(lines)

    def _explained(self, line: bytes, schema: str | None) -> bytes:
        """With its schema's descriptors, where it is the first in the file that needs them."""
        if schema is None or schema in self._told:
            return line
        self._told.add(schema)
        schema_set = self._schema_set(schema)
        return line if schema_set is None else with_schema(line, schema_set)

    def _rotate(self) -> None:
        for number in range(MAX_FILES - 1, 0, -1):
            newer = self._path if number == 1 else _rotated(self._path, number - 1)
            with contextlib.suppress(FileNotFoundError):  # never there, or removed by somebody
                newer.replace(_rotated(self._path, number))
        # Closed last: where anything fails before, no number may be left behind that is another file's later.
        rotated, self._file = self._file, _open(self._path)
        os.close(rotated)
        self._told.clear()


def _open(path: Path) -> int:
    descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    end = os.lseek(descriptor, 0, os.SEEK_END)
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        os.write(descriptor, b"\n")  # a line was torn off; ours are not to be part of it
    return descriptor


def _rotated(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}{path.suffix}")
