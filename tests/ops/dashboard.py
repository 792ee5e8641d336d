"""The provisioned dashboards, as the queries that Grafana would send."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_RANGE = re.compile(r"\[[^\]]*\]")
_OFFSET = re.compile(r"\boffset\s+\S+")
_LABELS = re.compile(r"\{[^}]*\}")
_WORD = re.compile(r"\b[A-Za-z_:][A-Za-z0-9_:]*(?!\s*\()\b")
_KEYWORDS = frozenset({"and", "or", "unless", "offset", "bool", "on", "by", "without", "ignoring"})


@dataclass(frozen=True)
class Query:
    """One target of one panel: `instant` asks for a value now, otherwise for a line over the range."""

    dashboard: str
    panel: str
    ref: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.panel}: {self.expr}"


def load(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text())
    return board


def panels(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that draws, those of collapsed rows included; rows themselves not."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def queries() -> list[Query]:
    return [
        Query(board["title"], panel["title"], target["refId"], target["expr"], target["instant"])
        for board in map(load, FILES)
        for panel in panels(board)
        for target in panel["targets"]
    ]


def substituted(expr: str, variables: Mapping[str, str]) -> str:
    """The query with its variables replaced; a variable that is not given stays, and Prometheus will refuse it."""
    for name in sorted(variables, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", variables[name]).replace(f"${name}", variables[name])
    return expr


def metric_names(expr: str) -> set[str]:
    """The metrics that a query names: what is left of it without strings, labels, ranges, groupings and functions."""
    for pattern in (_STRING, _LABELS, _RANGE, _OFFSET, _GROUPING):
        expr = pattern.sub(" ", expr)
    return {word for word in _WORD.findall(expr) if word not in _KEYWORDS}
