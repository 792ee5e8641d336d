"""Loom's flags, as they are also taken from a file."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperOption

from app import __version__
from app.cli.failure import CommandError
from app.loom.config import FILE_NAME, ConfigError, Key, read

_NOT_IN_FILES: Final = frozenset({"config", "version", "help", "replay", "export", "metadata", "while-stdin-open"})
"""What is said of one run only."""


def from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Read the file before any other flag: it becomes their defaults. Returns which file it was, if any."""
    if path is None:
        if not Path(FILE_NAME).is_file():
            return None
        path = Path(FILE_NAME)
    hints = get_type_hints(context.command.callback)
    options = {
        _long_name(option): option
        for option in context.command.params
        if isinstance(option, TyperOption) and option.name in hints and _long_name(option) not in _NOT_IN_FILES
    }
    try:
        found = read(path, {name: _key(hints[str(option.name)]) for name, option in options.items()})
    except ConfigError as error:
        raise CommandError(str(error), status=2) from error
    for name, value in found.items():
        try:
            options[name].process_value(context, value)
        except typer.BadParameter as error:
            raise CommandError(f"{path}: {name}: {' '.join(error.message.split())}", status=2) from error
    context.default_map = {str(options[name].name): value for name, value in found.items()}
    return path


def show_version(wanted: bool) -> None:
    """Print it and end."""
    if wanted:
        print(__version__)
        raise typer.Exit


def _long_name(option: TyperOption) -> str:
    return next(name for name in option.opts if name.startswith("--")).removeprefix("--")


def _key(hint: Any) -> Key:
    """What a flag takes, by its type in the command's signature: `list[str] | None` takes many strings."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is list:
        return Key(_kind(get_args(hint)[0]), is_list=True)
    return Key(_kind(hint))


def _kind(hint: Any) -> Any:
    return hint if hint in (bool, int, float) else str
