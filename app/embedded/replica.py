"""One replica of the template service, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from app.embedded.child import Child


class Replica(Child):
    """`python -m app serve` with `settings` as environment, on free ports unless they say otherwise."""

    def __init__(self, settings: Mapping[str, str], *, log: Path | None = None) -> None:
        super().__init__("the app", ["serve"], {"APP_HTTP_PORT": "0", "APP_GRPC_PORT": "0", **settings}, log=log)
        self.http_url = ""
        self.grpc_target = ""

    def _serves(self, said: Mapping[str, str]) -> None:
        self.http_url, self.grpc_target = said["http_url"], said["grpc_target"]
