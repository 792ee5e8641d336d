"""Where the service is, and how it is spoken to."""

from __future__ import annotations

import ipaddress
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from app.client.errors import EndpointError

DEFAULT_TARGET = "localhost:50051"

FORMS = "HOST:PORT, dns:///HOST:PORT, ipv4:ADDRESS:PORT,ADDRESS:PORT or unix:PATH"
_LISTS = ("ipv4:", "ipv6:")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class Tls:
    """What a TLS connection is made with, in PEM.

    `ca` are the authorities that may vouch for the server, `None` those that gRPC brings; `certificate` and `key` are
    the client's own, where the server asks for one (mTLS).
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            raise EndpointError("a client certificate and its key go together: only one of them is given")

    @classmethod
    def from_files(cls, ca: Path | None = None, certificate: Path | None = None, key: Path | None = None) -> Tls:
        """Raises `EndpointError`, naming the file, where one can't be read or is not what it should be."""
        contents = [None if file is None else _read(file) for file in (ca, certificate, key)]
        made = cls(*contents)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if ca is not None:
                context.load_verify_locations(ca)
        except ssl.SSLError:
            raise EndpointError(f"{ca} holds no certificate of an authority in PEM") from None
        try:
            if certificate is not None and key is not None:
                context.load_cert_chain(certificate, key, password=_no_password)
        except (ssl.SSLError, _PasswordNeededError) as error:
            why = getattr(error, "reason", None) or "the key needs a password"
            raise EndpointError(f"{certificate} and {key} are no certificate and key in PEM: {why}") from None
        return made


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A target in gRPC's own notation, and how to speak to it. Raises `EndpointError` where that can't be.

    `target` may stand for several addresses: all that DNS has for `dns:///HOST:PORT`, or those listed in
    `ipv4:A:PORT,B:PORT`; calls go to all of them in turn. `tls` is `None` for a connection in the clear. `token` goes
    along with every call, but in the clear only to this machine itself, unless `token_in_clear` says otherwise. `gzip`
    compresses requests; whether answers are compressed is the service's own choice. Without `retries` a call that
    failed is not made again; one that no server has begun to answer still is.

    A message received may have `max_receive_bytes` at most, one sent `max_send_bytes`, which are the service's own
    limits by default. A connection that has been silent for `keepalive_time_s` seconds is probed, and given up where
    the probe is not answered within `keepalive_timeout_s`; servers of ours bear a probe every 10 s. The addresses are
    looked up anew whenever a connection is lost or told to go, but no more often than every `resolve_interval_s`.
    """

    target: str = DEFAULT_TARGET
    tls: Tls | None = None
    token: str | None = field(default=None, repr=False)
    token_in_clear: bool = False
    gzip: bool = False
    retries: bool = True
    max_receive_bytes: int = 4 << 20
    max_send_bytes: int = 1 << 20
    keepalive_time_s: float = 20.0
    keepalive_timeout_s: float = 10.0
    resolve_interval_s: float = 1.0

    def __post_init__(self) -> None:
        hosts = _hosts(self.target)
        if self.token is None:
            return
        if not _TOKEN.fullmatch(self.token):
            raise EndpointError("the token may have letters, digits and . _ ~ + / - = only, and must not be empty")
        if self.tls is None and not self.token_in_clear and not all(map(_is_this_machine, hosts)):
            raise EndpointError(f"the token would go to {self.target} in the clear: use TLS")

    @property
    def is_local(self) -> bool:
        """Whether all of the target is this machine itself."""
        return all(map(_is_this_machine, _hosts(self.target)))


class _PasswordNeededError(Exception):
    pass


def _no_password() -> str:
    # Without this OpenSSL would ask at the terminal.
    raise _PasswordNeededError


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise EndpointError(f"cannot read {file}: {error.strerror or error}") from None


def _hosts(target: str) -> list[str]:
    """The hosts that a target names; the empty one stands for a socket of this machine."""
    if target.startswith(("unix:", "unix-abstract:")) and target.partition(":")[2].strip("/"):
        return [""]
    places = [target]
    if target.startswith(_LISTS):
        places = target.partition(":")[2].split(",")
    elif target.startswith("dns:"):
        # Who answers for an authority of its own may say that localhost is anywhere.
        server, _, name = target.removeprefix("dns:").removeprefix("//").rpartition("/")
        return [f"{_host(name, target)} by {server}"] if server else [_host(name, target)]
    return [_host(place, target) for place in places]


def _host(place: str, target: str) -> str:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or place != parts.netloc or parts.username is not None:
        raise EndpointError(f"the target must be {FORMS}, is {target or 'empty'}")
    return host


def _is_this_machine(host: str) -> bool:
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
