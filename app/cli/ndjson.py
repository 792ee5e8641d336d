"""Files of templates, one JSON object a line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

from app.cli.failure import CommandError
from app.domain.errors import InvalidInputError
from app.domain.template import TemplateDraft

STDIN = "-"
MAX_LINE_BYTES = 1 << 20
"""The longest template comes to four fifths of it, with every character escaped."""
MEMORY_BYTES = 8 << 20
"""What can be read only once is kept to be read twice: so much in memory, the rest in a temporary file."""
FIELDS = {"name", "body"}
WRONG = 2


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The file, or standard input, at its beginning, to which it can be set again. Raises `CommandError`."""
    with ExitStack() as files:
        try:
            source = _standard_input() if file == STDIN else files.enter_context(open(file, "rb"))  # noqa: PTH123
            if file == STDIN or not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                kept = files.enter_context(tempfile.SpooledTemporaryFile(MEMORY_BYTES))
                shutil.copyfileobj(source, kept)
                kept.seek(0)
                source = cast("BinaryIO", kept)
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror or error}", WRONG) from error
        yield source


def checked(source: BinaryIO, file: str) -> None:
    """Reads it whole. Raises `CommandError`, with the number of the line, where one is wrong."""
    for _ in templates(source, file):
        pass
    source.seek(0)


def templates(source: BinaryIO, file: str) -> Iterator[tuple[str, str]]:
    """The name and body of each. Blank lines are passed over. Raises `CommandError`."""
    number = 0
    while line := source.readline(MAX_LINE_BYTES + 1):
        number += 1
        if line.strip():
            try:
                draft = _draft(line)
            except _LineError as error:
                where = "standard input" if file == STDIN else file
                raise CommandError(f"{where}, line {number}: {error}; nothing was imported", WRONG) from None
            yield draft.name, draft.body


class _LineError(Exception):
    pass


def _draft(line: bytes) -> TemplateDraft:
    if len(line) > MAX_LINE_BYTES:
        raise _LineError(f"is longer than {MAX_LINE_BYTES:,} bytes")
    try:
        fields: Any = json.loads(line.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError as error:
        raise _LineError(f"is not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise _LineError(f"is not JSON: {error.msg}, at character {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise _LineError(f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise _LineError('must be an object such as {"name": "welcome", "body": "Dear {{name}}"}')
    if missing := FIELDS - fields.keys():
        raise _LineError(f"has no {' and no '.join(sorted(missing))}")
    if unknown := fields.keys() - FIELDS:
        raise _LineError(f"has {json.dumps(min(unknown)[:50])}, which is neither name nor body")
    if wrong := [name for name in sorted(FIELDS) if not isinstance(fields[name], str)]:
        raise _LineError(f"{wrong[0]} must be a text")
    try:
        return TemplateDraft(fields["name"], fields["body"])
    except InvalidInputError as error:
        raise _LineError(str(error)) from None


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer
