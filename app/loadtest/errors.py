"""What can go wrong in a load test, apart from failed requests, which are counted."""

from __future__ import annotations


class LoadtestError(Exception):
    """The load test cannot run, or not be trusted; the message is one line and says what to do."""


class PlanError(LoadtestError):
    """The workload asked for makes no sense."""


class TargetError(LoadtestError):
    """The app, its caches or its database cannot be reached, or an address is malformed."""


class RequestError(Exception):
    """One request got no response; `kind` is a short stable phrase, such as `timeout` or `connection refused`."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind
