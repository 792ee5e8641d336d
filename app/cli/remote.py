"""The commands that speak to a running service: its address and credentials as flags, and how they end."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import uvloop

from app.cli.failure import CommandError
from app.client.endpoint import DEFAULT_TARGET, Endpoint, Tls
from app.client.errors import CallError, EndpointError, UnavailableError
from app.loadtest.target import running_stack

T = TypeVar("T")

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=2**63 - 1, show_default=False)]
Target = Annotated[
    str | None,
    typer.Option(
        help="Where the service is: HOST:PORT, or any target of gRPC's.",
        show_default=f"the stack that runs in this folder, else {DEFAULT_TARGET}",
    ),
]
UseTls = Annotated[bool, typer.Option("--tls", help="TLS, trusting the authorities that gRPC brings.")]
Ca = Annotated[Path | None, typer.Option("--tls-ca", metavar="FILE", help="TLS, trusting those in this PEM file.")]
Cert = Annotated[
    Path | None,
    typer.Option("--cert", "--tls-cert", metavar="FILE", help="The client's own certificate in PEM, for mTLS."),
]
Key = Annotated[Path | None, typer.Option("--key", "--tls-key", metavar="FILE", help="That certificate's key in PEM.")]
TokenEnv = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Environment variable with the token to send: over TLS, or to this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]

WRONG, INTERRUPTED, PIPE_CLOSED = 2, 130, 141


def endpoint(
    target: str | None, tls: bool, ca: Path | None, cert: Path | None, key: Path | None, token_env: str | None
) -> Endpoint:
    """What the flags say. Raises `CommandError` where that makes no sense."""
    try:
        made = Tls.from_files(ca, cert, key) if tls or ca or cert or key else None
        return Endpoint(target or _running() or DEFAULT_TARGET, made, token=_token(token_env))
    except EndpointError as error:
        raise CommandError(str(error), WRONG) from error


def check_seconds(flag: str, seconds: float) -> None:
    """Raises `CommandError` unless it is a time that one can wait."""
    if not 0 < seconds <= 86_400:
        raise CommandError(f"{flag} must be above 0 and at most 86400 seconds, is {seconds:g}", WRONG)


def run(work: Coroutine[Any, Any, T], target: str) -> T:
    """The outcome of `work`, which makes calls to `target`. Raises `CommandError` where they fail.

    Ctrl-C ends the command with 130; so does 141, without a word, the reader of standard output that goes away.
    """
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Or the interpreter would complain as it flushes what nobody reads.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except UnavailableError as error:
        raise CommandError(f"the service at {target} is unavailable: {error.text}") from error
    except CallError as error:
        raise CommandError(f"{error.text or 'the call failed'} ({error.status.name})") from error


def printable(text: str) -> str:
    """Without what would move a terminal's cursor or worse; line ends and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def _running() -> str | None:
    said = running_stack() or {}
    return str(said["grpc_target"]) if said.get("grpc_target") else None


def _token(variable: str | None) -> str | None:
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise EndpointError(f"--token-env names {variable}, which is not set in the environment, or empty")
    return token
