"""One replica of the template service, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.embedded.child import Child
from app.embedded.errors import EmbeddedError


class Replica(Child):
    """`python -m app serve` with `settings` as environment, on free ports unless they say otherwise."""

    def __init__(self, settings: Mapping[str, str], *, log: Path | None = None) -> None:
        super().__init__("the app", ["serve"], {"APP_HTTP_PORT": "0", "APP_GRPC_PORT": "0", **settings}, log=log)
        self.http_url = ""
        self.grpc_target = ""
        self._is_restarting = False

    @property
    def is_running(self) -> bool:
        """Whether it serves, or is about to again."""
        return self._is_restarting or super().is_running

    def restart(self, settings: Mapping[str, str]) -> None:
        """Stop it, and start it anew on the same ports, with these settings changed.

        Raises `EmbeddedError` where it does not start so; it is started as it was then.
        """
        ports = {"APP_HTTP_PORT": self.http_url, "APP_GRPC_PORT": self.grpc_target}
        before = {**self._settings, **{name: where.rpartition(":")[2] for name, where in ports.items()}}
        self._is_restarting = True
        try:
            self.stop()
            self._settings = {**before, **settings}
            try:
                self.start()
            except EmbeddedError:
                self._settings = before
                self.start()
                raise
        finally:
            self._is_restarting = False

    def _serves(self, said: Mapping[str, str]) -> None:
        self.http_url, self.grpc_target = said["http_url"], said["grpc_target"]
