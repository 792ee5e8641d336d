"""docker's command line."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping

from app.compose.errors import ComposeError

LEAST_COMPOSE = 2, 17
"""The first Compose whose `up` knows `--wait-timeout`."""
ANSWER_TIMEOUT_S = 60.0
_LAST_WORDS_S = 10.0
_LINES_TOLD = 3
# What clients and engines of all ages say, and what that means.
_KNOWN = (
    (
        re.compile(r"permission denied.*docker.*sock|docker.*sock.*permission denied", re.IGNORECASE | re.DOTALL),
        "this user may not use the Docker engine: run it with sudo, or as a member of the group docker",
    ),
    (
        re.compile(r"cannot connect to the docker|is the docker daemon running|error during connect", re.IGNORECASE),
        "no Docker engine answers: start it, or leave out --compose",
    ),
)
_PORT_TAKEN = re.compile(r"port is already allocated|ports are allocated|address already in use", re.IGNORECASE)
_ADDRESS = re.compile(r"\b127\.0\.0\.1:\d+(-\d+)?")


def require() -> None:
    """Raise `ComposeError` where there is no docker, no Compose, or no engine that this user may use."""
    if shutil.which("docker") is None:
        raise ComposeError("there is no docker command here: install Docker, or leave out --compose")
    try:
        version = run("compose", "version", "--short")
    except ComposeError:
        raise ComposeError(f"docker has no compose plugin: install Docker Compose {_least()} or newer") from None
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < LEAST_COMPOSE:
        raise ComposeError(f"Docker Compose is {version or 'of an unknown version'}: {_least()} or newer is needed")
    run("version", "--format", "{{.Server.Version}}")


def run(
    *words: str,
    text: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float = ANSWER_TIMEOUT_S,
    with_errors: bool = False,
) -> str:
    """What `docker WORDS`, given `text` to read, prints; `with_errors` its standard error too. Raises `ComposeError`.

    It runs in a session of its own, so that Ctrl-C is for its caller; when that is interrupted, it is told to end.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - this module's callers choose the words
            ["docker", *words],  # noqa: S607 - wherever this user has it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if with_errors else subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise ComposeError(f"docker cannot be run: {error.strerror or error}") from None
    try:
        output, errors = process.communicate(text, timeout_s)
    except subprocess.TimeoutExpired:
        _end(process)
        raise ComposeError(f"docker {_verb(words)} did not end within {timeout_s:g} s") from None
    except BaseException:
        _end(process)
        raise
    if process.returncode != 0:
        raise ComposeError(_meaning(words, errors or output, process.returncode))
    return output.strip()


def _end(process: subprocess.Popen[str]) -> None:
    """By SIGTERM, upon which Compose leaves off in good order; by SIGKILL where that takes long."""
    process.terminate()
    try:
        process.communicate(timeout=_LAST_WORDS_S)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_LAST_WORDS_S)


def _meaning(words: tuple[str, ...], errors: str, status: int) -> str:
    for pattern, meaning in _KNOWN:
        if pattern.search(errors):
            return meaning
    if _PORT_TAKEN.search(errors):
        address = _ADDRESS.search(errors)
        return f"{address[0] if address else 'a port'} was free a moment ago and has been taken since: run it again"
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return f"docker {_verb(words)} failed: " + (" / ".join(lines[-_LINES_TOLD:]) or f"exit status {status}")


def _verb(words: tuple[str, ...]) -> str:
    """The command without its options, for people."""
    verbs = ("version", "up", "down", "ps", "logs", "kill", "start", "pause", "unpause", "exec", "inspect", "rm")
    return " ".join(word for word in words if word in ("compose", "image", "network", *verbs))


def _least() -> str:
    return ".".join(map(str, LEAST_COMPOSE))
