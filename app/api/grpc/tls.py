"""TLS and mutual TLS for the gRPC server, from PEM files that may be replaced while it runs."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Each file's inode, size and time of change; None where it is away."""

_log = logging.getLogger(__name__)


class TlsError(Exception):
    """A file can't be used; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the files held, and their stamp at that time."""

    stamp: Stamp
    configuration: grpc.ServerCertificateConfiguration


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificates and key are, in PEM. With `client_ca`, clients must show a certificate that it has signed."""

    cert: Path
    """The server's certificate, followed by those between it and the root."""
    key: Path
    """That certificate's private key, not encrypted."""
    client_ca: Path | None = None

    def read(self) -> Certificates:
        """What the files hold now. Raises `TlsError` where they can't be used, or change meanwhile."""
        stamp = self.stamp()
        cert, key = _read(self.cert), _read(self.key)
        client_ca = None if self.client_ca is None else _read(self.client_ca)
        self._check()
        if self.stamp() != stamp:
            raise TlsError(f"{self.cert}, or a file that goes with it, was being replaced while it was read")
        return Certificates(stamp, grpc.ssl_server_certificate_configuration([(key, cert)], client_ca))

    def stamp(self) -> Stamp:
        """Another one, as soon as a file has been replaced, written to or removed."""
        paths = [self.cert, self.key] if self.client_ca is None else [self.cert, self.key, self.client_ca]
        return tuple(_stamp(path) for path in paths)

    def _check(self) -> None:
        # By OpenSSL, because gRPC tells of a bad file to stderr only, or at the first handshake.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_verify_locations(self.cert)
        except ssl.SSLError as error:
            raise TlsError(f"{self.cert} must hold the server's certificate in PEM") from error
        try:
            context.load_cert_chain(self.cert, self.key, password=_no_password)
        except ssl.SSLError as error:
            why = f"must hold the private key of the certificate in {self.cert}, in PEM and not encrypted"
            raise TlsError(f"{self.key} {why}") from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except ssl.SSLError as error:
                raise TlsError(
                    f"{self.client_ca} must hold the certificates, in PEM, that sign clients' own"
                ) from error


class ServerTls:
    """Credentials that follow their files: a new connection gets the certificates that are there then.

    Where those can't be used, the last good ones stay: `on_reload` is told of it, from a thread of gRPC's, and the log.
    """

    def __init__(self, files: TlsFiles, on_reload: Callable[[bool], None] | None = None) -> None:
        """Reads the files. Raises `TlsError`."""
        self._files = files
        self._on_reload = on_reload
        self._first = files.read()
        self._tried = self._first.stamp
        self._lock = threading.Lock()

    def credentials(self) -> grpc.ServerCredentials:
        """For one server."""
        mutual = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(self._first.configuration, self._renewed, mutual)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks before each handshake, from threads of its own; None stands for what it has."""
        with self._lock:
            stamp = self._files.stamp()
            if stamp == self._tried:
                return None
            self._tried = stamp
            try:
                certificates = self._files.read()
            except TlsError as error:
                _log.error("the gRPC server keeps its old certificate: %s", error)
                self._told(False)
                return None
            _log.info("the gRPC server has a new certificate, from %s", self._files.cert)
            self._told(True)
            return certificates.configuration

    def _told(self, good: bool) -> None:
        if self._on_reload is not None:
            self._on_reload(good)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"{path} can't be read: {error.strerror or error}") from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _no_password() -> str:
    """Without it OpenSSL asks for one at the terminal."""
    return ""
