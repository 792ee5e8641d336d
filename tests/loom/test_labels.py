"""Which paths become labels, by what has passed."""

from __future__ import annotations

import re

import pytest

from app.loom.call import Event
from app.loom.metrics import LoomMetrics
from tests.loom.account import Account
from tests.loom.transcript import Transcript
from tests.loom.wire import RESPONSE_HEADERS

METHOD = "/test.Echo/Unary"


class Counted(Account):
    """An account of calls that are counted too."""

    def __init__(self, metrics: LoomMetrics) -> None:
        super().__init__()
        self._metrics = metrics

    def call(self, event: Event) -> None:
        super().call(event)
        self._metrics.call(event)


@pytest.mark.parametrize("elapsed_s", [0.5, 1.5], ids=["in time", "past the deadline"])
@pytest.mark.parametrize(("said", "label"), [("0", METHOD), ("5", METHOD), ("7", None), ("12", None), ("16", None)])
def test_only_a_backend_that_has_a_method_makes_its_path_a_label(
    said: str, label: str | None, elapsed_s: float
) -> None:
    metrics = LoomMetrics()
    transcript = Transcript(account=Counted(metrics))
    transcript.ask(more=[("grpc-timeout", "1S")], end=True)
    transcript.now += elapsed_s
    transcript.answer(fields=[*RESPONSE_HEADERS, ("grpc-status", said)], end=True)
    labels = re.findall(r'loom_proxy_requests_total\{method="([^"]+)"', metrics.exposition()[0].decode())
    assert labels == [label or "other"]
