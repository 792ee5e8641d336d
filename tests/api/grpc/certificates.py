"""Certificates of a test's own, as files."""

from __future__ import annotations

from pathlib import Path

import trustme

from app.api.grpc.tls import TlsFiles


class Authority:
    """Signs certificates and writes them below `directory`."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._authority = trustme.CA(organization_name=name)
        self.file = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, *hosts: str) -> TlsFiles:
        """Signed for these hosts, as NAME.pem and NAME.key; what stood there is replaced."""
        signed = self._authority.issue_cert(*(hosts or ("localhost", "127.0.0.1")))
        cert, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        cert.write_bytes(b"".join(part.bytes() for part in signed.cert_chain_pems))
        signed.private_key_pem.write_to_path(key)
        return TlsFiles(cert, key)
