"""The grpcurl command that makes a recorded call again, fit to be pasted into a POSIX shell."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from app.loom.call import Headers
from app.loom.recording.redaction import PLACEHOLDER

RESERVED: Final = frozenset(
    {b"te", b"content-type", b"user-agent", b"grpc-accept-encoding", b"grpc-encoding", b"accept-encoding"}
)
"""Metadata that grpcurl sends by itself. What begins with a colon or with `grpc-` is the protocol's too."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.-]+")
_NOT_IN_VARIABLES: Final = re.compile(r"[^A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the command calls, and how."""

    address: str
    """`host:port`."""
    tls: bool = False
    ca_file: str = ""
    client_certificate: bool = False
    """Whether one is asked for: it is taken from `$LOOM_CERT` and `$LOOM_KEY`, the names of its files."""
    skip_verify: bool = False
    authority: str = ""
    """Sent instead of the address, where it is another one. With TLS the name that the certificate is for."""

    def as_called(self, authority: str) -> Target:
        """For a call that was made by this `:authority`: with TLS, clients have verified that name."""
        return replace(self, authority=_host(authority)) if self.tls and authority else self


def command(
    method: str, messages: Sequence[Any], headers: Headers, target: Target, timeout_s: float | None = None
) -> str:
    """The command, one line. `messages` are the requests as JSON, in protobuf's mapping; `headers` those of the call.

    What was redacted is taken from a shell variable: `authorization` from `$LOOM_AUTH`, `x-key` from `$LOOM_X_KEY`.
    """
    words = ["grpcurl"]
    if not target.tls:
        words.append("-plaintext")
    elif target.skip_verify:
        words.append("-insecure")
    if target.tls and target.ca_file:
        words += ["-cacert", shlex.quote(target.ca_file)]
    if target.tls and target.client_certificate:
        words += ["-cert", '"$LOOM_CERT"', "-key", '"$LOOM_KEY"']
    if target.authority and target.authority not in (target.address, _host(target.address)):
        words += ["-authority", shlex.quote(target.authority)]
    if timeout_s is not None:
        words += ["-max-time", f"{timeout_s:.3f}"]
    for name, value in headers:
        if not name.startswith((b":", b"grpc-")) and name not in RESERVED:
            words += ["-H", _header(name, value)]
    words += ["-d", "@", shlex.quote(target.address), shlex.quote(method.removeprefix("/"))]
    # By stdin and printf: arguments have a bound, and what is in a message must not become a format.
    texts = [shlex.quote(json.dumps(message, ensure_ascii=False)) for message in messages]
    return " ".join(["printf", "'%s\\n'", *(texts or ["''"]), "|", *words])


def variable(name: bytes) -> str:
    """The shell variable that holds the value of redacted metadata."""
    if name == b"authorization":
        return "LOOM_AUTH"
    return "LOOM_" + _NOT_IN_VARIABLES.sub("_", name.decode("latin-1").upper()).strip("_")


def _host(authority: str) -> str:
    try:
        return urlsplit(f"//{authority}").hostname or authority
    except ValueError:
        return authority


def _header(name: bytes, value: bytes) -> str:
    text = name.decode("latin-1")
    if value == PLACEHOLDER:
        plain = _PLAIN.fullmatch(text) is not None  # as names are, but whoever sent it may not have kept to that
        return f'"{text}: ${variable(name)}"' if plain else f'{shlex.quote(text + ": ")}"${variable(name)}"'
    return shlex.quote(f"{text}: {value.decode('latin-1')}")
