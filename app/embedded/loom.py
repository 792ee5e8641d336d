"""Loom in front of a replica, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from app.embedded.child import Child

STOP_S = 2
"""What calls under way through it may take when all is stopped: those of a watch never end by themselves."""


class LoomProcess(Child):
    """`python -m app loom` on loopback, in front of `backend` (HOST:PORT). A port of 0 is any free one.

    No loom.toml is read: what that says is meant for another backend.
    """

    def __init__(
        self, backend: str, *, port: int = 0, ui_port: int = 0, backend_tls: bool = False, log: Path | None = None
    ) -> None:
        arguments = ["loom", "--backend", backend, "--listen", f"127.0.0.1:{port}", "--ui", f"127.0.0.1:{ui_port}"]
        arguments += ["--config", os.devnull, "--log", "warning", "--stop-s", str(STOP_S)]
        if backend_tls:  # to a process of our own, by loopback, where its certificate's name can't be right
            arguments += ["--backend-tls", "--backend-tls-skip-verify"]
        super().__init__("Loom", arguments, {}, log=log)
        self.target = ""
        """Where gRPC clients connect."""
        self.url = ""
        """The inspector's."""

    def _serves(self, said: Mapping[str, str]) -> None:
        self.target, self.url = said["listen"], said["ui"]
