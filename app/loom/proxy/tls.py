"""TLS contexts of both legs. HTTP/2 is agreed on by ALPN, and nothing below TLS 1.2 is spoken (RFC 9113, 9.2)."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from app.loom.proxy.upstream import ALPN

_log = logging.getLogger(__name__)


class TlsError(Exception):
    """A certificate, a key or an authority's file can't be used; the message names the file."""


def for_clients(certificate: Path, key: Path, *, client_authority: Path | None = None) -> ssl.SSLContext:
    """What Loom shows its clients. With `client_authority` they must show a certificate of it (mTLS)."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_chain(context, certificate, key)
    if client_authority is not None:
        _load_authority(context, client_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return _of_http2(context)


def for_backend(
    *,
    authority: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    skip_verify: bool = False,
) -> ssl.SSLContext:
    """How Loom dials a backend with TLS: trusting `authority`, or the system's where there is none.

    With `certificate` and `key` it shows them (mTLS). `skip_verify` accepts any certificate, and is warned of.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    if authority is not None:
        _load_authority(context, authority)
    if certificate is not None:
        _load_chain(context, certificate, key)
    if skip_verify:
        _log.warning("the backend's certificate is not verified: anybody in between can read and change the calls")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return _of_http2(context)


def _of_http2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        # An encrypted key is refused: without a password OpenSSL would ask the terminal for one.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ssl.SSLError) as error:
        files = str(certificate) if key is None else f"{certificate} with {key}"
        raise TlsError(f"{files}: no certificate and its key can be read ({error.strerror or error})") from error


def _load_authority(context: ssl.SSLContext, authority: Path) -> None:
    try:
        context.load_verify_locations(authority)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"{authority}: no certificate can be read ({error.strerror or error})") from error
