"""The text of a registry's metrics, made in pieces: all at once is some milliseconds, which all requests would wait."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

OPENMETRICS = "application/openmetrics-text"
SAMPLES = 50
"""In a piece, give or take those of a family that begins in it; some tenths of a millisecond."""
_END = b"# EOF\n"


def exposition(registry: CollectorRegistry, accept: str, names: Collection[str] = ()) -> tuple[Iterator[bytes], str]:
    """The pieces of the text, and its content type: OpenMetrics where an HTTP `Accept` header lists it.

    Where there are `names`, only samples that have one of them, and nothing else is looked at.

    A family is looked at when its first piece is made, so what is counted between two pieces is seen in later families.
    """
    # The library fails on versions that are no numbers, and puts what it is sent into the content type.
    listed = {item.partition(";")[0].strip().lower() for item in accept.split(",")}
    is_open = OPENMETRICS in listed
    encode, content_type = choose_encoder(f"{OPENMETRICS}; version=1.0.0" if is_open else "")

    source = registry.restricted_registry(names) if names else registry

    def pieces() -> Iterator[bytes]:
        piece, samples = b"", 0
        for family in source.collect():
            for begin in range(0, max(1, len(family.samples)), SAMPLES):
                part = _Part(family, begin)
                text = encode(part).removesuffix(_END)
                piece += _without_head(text) if begin else text
                samples += len(part.samples)
                if samples >= SAMPLES:
                    yield piece
                    piece, samples = b"", 0
        yield piece + _END if is_open else piece

    return pieces(), content_type


class _Part(Collector):
    """Some of a family's samples."""

    def __init__(self, family: Metric, begin: int) -> None:
        self._family = copy.copy(family)
        self.samples = self._family.samples = family.samples[begin : begin + SAMPLES]

    def collect(self) -> Iterable[Metric]:
        yield self._family


def _without_head(text: bytes) -> bytes:
    """Without the lines that say what the family is, which stand once, before its first sample."""
    while text.startswith(b"#"):
        text = text.partition(b"\n")[2]
    return text
