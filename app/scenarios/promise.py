"""Promises and whether they were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    """`what` was promised, up to which `bar`, what was `measured`, and whether that is `ok`."""

    what: str
    bar: str
    measured: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """All promises of one scenario."""

    scenario: str
    promises: Sequence[Promise]

    @property
    def ok(self) -> bool:
        """Whether every promise was kept, and any was made."""
        return bool(self.promises) and all(promise.ok for promise in self.promises)

    def as_json(self) -> dict[str, object]:
        return {
            "scenario": self.scenario,
            "ok": self.ok,
            "promises": [
                {"what": each.what, "bar": each.bar, "measured": each.measured, "ok": each.ok} for each in self.promises
            ],
        }


def none_of(what: str, count: int, of: int, note: str = "") -> Promise:
    """Promises that none of `of` things happened; with nothing to look at, nothing was kept."""
    measured = f"{count:,} of {of:,}" + (f" ({note})" if note and count else "")
    return Promise(what, "0", measured, count == 0 and of > 0)


def at_most(what: str, bar: float, measured: float | None, unit: str = "") -> Promise:
    """Promises a figure of at most `bar`; one that could not be measured was not kept."""
    shown = "not measured" if measured is None else _figure(measured, unit)
    return Promise(what, f"≤ {_figure(bar, unit)}", shown, measured is not None and measured <= bar)


def exactly(what: str, bar: int, measured: int | None) -> Promise:
    shown = "not measured" if measured is None else f"{measured:,}"
    return Promise(what, f"{bar:,}", shown, measured == bar)


def _figure(value: float, unit: str) -> str:
    if unit == "ms":
        return f"{value:,.1f} ms"
    return f"{value:,.0f}{' ' + unit if unit else ''}"
