"""What an experiment gives: tables, charts, and verdicts on what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from app.report.html import Chart
from app.report.table import Table


class Standing(Enum):
    """What became of a claim. Only `BROKEN` fails a run: what was published elsewhere need not be true here."""

    HOLDS = "holds"
    BROKEN = "BROKEN"
    NOT_REPRODUCED = "cannot be reproduced"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One `claim`: what is `expected`, published or derived, what was `measured`, and the `bar` that it had to meet.

    `reason` says why it cannot be reproduced, or how the bar was come by.
    """

    claim: str
    expected: str
    measured: str
    bar: str
    standing: Standing
    reason: str = ""

    def as_json(self) -> dict[str, str]:
        return {
            "claim": self.claim,
            "expected": self.expected,
            "measured": self.measured,
            "bar": self.bar,
            "standing": self.standing.value,
            "reason": self.reason,
        }


def held(claim: str, expected: str, measured: str, bar: str, ok: bool, reason: str = "") -> Verdict:
    """A verdict that must hold."""
    return Verdict(claim, expected, measured, bar, Standing.HOLDS if ok else Standing.BROKEN, reason)


def not_reproduced(claim: str, published: str, measured: str, reason: str) -> Verdict:
    """A verdict on what was published and cannot be had."""
    return Verdict(claim, published, measured, "–", Standing.NOT_REPRODUCED, reason)


@dataclass(frozen=True, slots=True)
class Result:
    """`charts` have names fit for files, `figures` are the raw ones, fit for JSON, `notes` stand below the verdicts."""

    tables: Sequence[Table]
    charts: Mapping[str, Chart]
    verdicts: Sequence[Verdict]
    figures: Mapping[str, object]
    notes: Sequence[str] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether every verdict that must hold does, and there is any verdict at all."""
        return bool(self.verdicts) and all(verdict.standing is not Standing.BROKEN for verdict in self.verdicts)

    def as_json(self) -> dict[str, object]:
        """All but the charts; the same for the same seed where the experiment runs in virtual time."""
        return {
            "ok": self.ok,
            "verdicts": [verdict.as_json() for verdict in self.verdicts],
            "tables": [
                {
                    "title": table.title,
                    "columns": list(table.columns),
                    "rows": [{"label": row.label, "cells": list(row.cells)} for row in table.rows],
                }
                for table in self.tables
            ],
            "figures": dict(self.figures),
            "notes": list(self.notes),
        }
