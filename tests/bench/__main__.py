"""`python -m tests.bench`: take the figures, print them, and write them as JSON."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from app.cli.signals import terminated_as_interrupted
from app.embedded.errors import EmbeddedError
from app.report.files import ReportError, write_json
from app.report.machine import machine, packages
from tests.bench.figure import FULL, QUICK, BenchError, Effort, Result, Subject
from tests.bench.grpc_hit import GRPC_UNARY_HIT
from tests.bench.http_hit import HTTP_HIT
from tests.bench.imports import IMPORTS
from tests.bench.inspector import INSPECTOR
from tests.bench.l1_read import L1_READ
from tests.bench.live_page import LIVE_PAGE
from tests.bench.loom import LOOM, LOOM_UNARY
from tests.bench.loom_memory import LOOM_MEMORY
from tests.bench.memory import MEMORY
from tests.bench.singleflight import OVERHEAD, SHARED
from tests.bench.watch_fanout import WATCH_FANOUT

SUBJECTS: Sequence[Subject] = (
    SHARED,
    OVERHEAD,
    L1_READ,
    HTTP_HIT,
    LIVE_PAGE,
    GRPC_UNARY_HIT,
    WATCH_FANOUT,
    IMPORTS,
    MEMORY,
    LOOM_UNARY,
    LOOM,
    LOOM_MEMORY,
    INSPECTOR,
)
NAMES = [figure.name for subject in SUBJECTS for figure in subject.figures]
RUNS = 5
"""Medians are of so many runs."""


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 where every figure was taken, whether or not its bar holds."""
    options = _parser().parse_args(arguments)
    out = options.out or Path("out", "bench-trial.json" if options.quick or options.only else "bench.json")
    effort, runs = (QUICK, 1) if options.quick else (FULL, RUNS)
    console = Console(highlight=False)
    try:
        with terminated_as_interrupted():
            results = _take(options.only or _possible(console), effort, runs, console)
        write_json(out, [result.document() for result in results])
    except (BenchError, EmbeddedError, ReportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    _show(results, "Tried out only: these are no figures" if options.quick else f"Medians of {runs} runs", console)
    console.print(f"written to {out}")
    return 0


def _possible(console: Console) -> Collection[str]:
    for subject in SUBJECTS:
        if subject.missing:
            console.print(f"{', '.join(figure.name for figure in subject.figures)}: left out: {subject.missing}")
    return [figure.name for subject in SUBJECTS if not subject.missing for figure in subject.figures]


def _take(names: Collection[str], effort: Effort, runs: int, console: Console) -> list[Result]:
    results = []
    for subject in SUBJECTS:
        wanted = [figure for figure in subject.figures if figure.name in names]
        if not wanted:
            continue
        taken = []
        for number in range(1, runs + 1):
            console.print(f"{', '.join(figure.name for figure in wanted)}: run {number} of {runs} …")
            taken.append(subject.measure(effort))
        results += [Result(figure, [run[figure.name] for run in taken]) for figure in wanted]
    return results


def _show(results: Sequence[Result], title: str, console: Console) -> None:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("value", "baseline", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bar")
    for result in results:
        bar = f"{'holds' if result.holds else 'MISSED'} ({result.figure.bar})" if result.figure.bar else "–"
        values = (f"{value:,.{_digits(value)}f} {result.figure.unit}" for value in (result.value, result.baseline))
        table.add_row(result.figure.name, *values, f"{result.ratio:.2f}", bar, style=None if result.holds else "bold")
    console.print()
    console.print(table)
    for baseline in dict.fromkeys(result.figure.baseline for result in results):
        of = ", ".join(result.figure.name for result in results if result.figure.baseline == baseline)
        console.print(f"baseline of {of}: {baseline}")
    for label, value in [*machine(), ("Packages", packages(["uvloop", "uvicorn", "httptools", "fastapi", "grpcio"]))]:
        console.print(f"{label}: {value}")


def _digits(value: float) -> int:
    return 2 if value < 100 else 1 if value < 1_000 else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Take the project's figures.")
    parser.add_argument("--only", action="append", metavar="NAME", choices=NAMES, help="this figure; repeatable")
    parser.add_argument("--quick", action="store_true", help="one short run, to see that it works: not for figures")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="where to write (default out/bench.json, or out/bench-trial.json with --quick or --only)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
