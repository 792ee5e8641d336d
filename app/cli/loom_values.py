"""What Loom's flags say, as what it is run with. All raise `CommandError`, one line that says what would be right."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Final

from app.cli.failure import CommandError
from app.cli.loom_session import SESSIONS
from app.loom.bootstrap import HostPort
from app.loom.proxy import tls
from app.loom.recording.session import SessionError, session_path
from app.loom.schema.errors import SchemaError
from app.loom.schema.files import from_descriptor_set, from_proto_dir
from app.loom.schema.schema import Schema

_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_ROTATED: Final = re.compile(r".*\.[0-9]")
_METADATA_NAME: Final = re.compile(r"[0-9a-z_.-]+(?<!-bin)")
_ADDRESS: Final = re.compile(r"(?:(?P<name>[^\[\]:]*)|\[(?P<v6>[0-9A-Fa-f:.]+)\]):(?P<port>[0-9]{1,5})")


def address(flag: str, value: str, *, lowest_port: int = 0) -> HostPort:
    """Of `HOST:PORT`; `lowest_port` is 0 where the system may choose one."""
    match = _ADDRESS.fullmatch(value)
    port = int(match["port"]) if match else -1
    if match is None or not lowest_port <= port <= 65535:
        raise CommandError(
            f"{flag}: {value!r} is no address: HOST:PORT is, such as 127.0.0.1:9999 or [::1]:9999, the port from "
            f"{lowest_port} to 65535",
            status=2,
        )
    return HostPort(match["v6"] or match["name"] or "127.0.0.1", port)


def authority_name(name: str) -> str | None:
    """What the backend is told, if anything."""
    if not re.fullmatch(r"[!-~]*", name):
        raise CommandError(f"--authority: {name!r} is no name such as app.example.com:443", status=2)
    return name or None


def session_file(name: str) -> Path | None:
    """Where a session is kept, if one is."""
    if not name:
        return None
    if _ROTATED.fullmatch(name):
        raise CommandError(
            f"--session: {name!r} ends as the files do that are rotated away; leave its end out", status=2
        )
    try:
        return session_path(Path.home() / SESSIONS, name)
    except SessionError as error:
        raise CommandError(f"--session: {error}", status=2) from error


def redacted_name(text: str) -> str:
    """Of metadata, in lower case."""
    name = text.strip().lower()
    if not _NAME.fullmatch(name):
        raise CommandError(f"--redact: {text!r} is no metadata's name such as x-api-key", status=2)
    return name


def metadata_pair(text: str) -> tuple[str, str]:
    """Of `NAME: VALUE`."""
    name, colon, value = text.partition(":")
    name, value = name.strip().lower(), value.strip()
    if not colon or not _METADATA_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
        # The value may be a secret, so it is not repeated.
        raise CommandError("--reflect-header: 'NAME: VALUE' is wanted, in ASCII, the name as metadata has it", status=2)
    return name, value


def schema_of(proto_dir: Path | None, descriptor_set: Path | None) -> Schema | None:
    """What explains messages where the backend does not."""
    if proto_dir is not None and descriptor_set is not None:
        raise CommandError("--proto-dir and --descriptor-set exclude each other", status=2)
    try:
        if proto_dir is not None:
            return from_proto_dir(proto_dir)
        return None if descriptor_set is None else from_descriptor_set(descriptor_set)
    except SchemaError as error:
        raise CommandError(str(error), status=2) from error


def listen_tls(certificate: Path | None, key: Path | None, client_authority: Path | None) -> ssl.SSLContext | None:
    """For clients, if they are to speak TLS."""
    if certificate is None and key is None and client_authority is None:
        return None
    if certificate is None or key is None:
        raise CommandError("TLS with clients needs both --tls-cert and --tls-key", status=2)
    try:
        return tls.for_clients(certificate, key, client_authority=client_authority)
    except tls.TlsError as error:
        raise CommandError(str(error), status=2) from error


def backend_tls_of(
    wanted: bool, authority: Path | None, certificate: Path | None, key: Path | None, *, skip_verify: bool
) -> ssl.SSLContext | None:
    """For the backend, if it is to be spoken to with TLS."""
    if not wanted:
        if skip_verify or any((authority, certificate, key)):
            raise CommandError("the --backend-tls-… flags need --backend-tls", status=2)
        return None
    if (certificate is None) != (key is None):
        raise CommandError("--backend-tls-cert and --backend-tls-key go together", status=2)
    try:
        return tls.for_backend(authority=authority, certificate=certificate, key=key, skip_verify=skip_verify)
    except tls.TlsError as error:
        raise CommandError(str(error), status=2) from error
