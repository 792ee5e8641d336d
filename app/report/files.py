"""Files that readers see whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path


class ReportError(Exception):
    """A report cannot be written; the message is one line and names the file."""


def check_folder(folder: Path) -> None:
    """Makes `folder` where it is missing. Raises `ReportError` unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReportError(f"cannot write into {folder}: {error.strerror or error}") from error


def write_json(path: Path, document: object) -> None:
    """As `write_text`, with `document` as indented JSON."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, with `text` in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Puts `data` in place at once, making the folders above. Raises `ReportError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # A pipe or a terminal: replacing it would destroy it.
            path.write_bytes(data)
            return
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(draft).chmod(0o644)
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror or error}") from error
