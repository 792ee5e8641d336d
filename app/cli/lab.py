"""`python -m app lab`: experiments on the real cache, beside what was published or derived."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.failure import CommandError
from app.cli.signals import terminated_as_interrupted
from app.embedded.errors import EmbeddedError
from app.lab.catalogue import EXPERIMENTS, find
from app.lab.errors import LabError
from app.lab.experiment import Experiment, Options
from app.lab.pages import html, verdict_table
from app.lab.progress import ConsoleProgress
from app.lab.result import Standing
from app.lab.run import Outcome, run
from app.loadtest.errors import LoadtestError
from app.report.files import ReportError, check_folder, write_bytes, write_json, write_text

BROKEN, UNUSABLE, INTERRUPTED = 1, 2, 130


def lab(
    experiments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help=f"Of {', '.join(each.name for each in EXPERIMENTS)}.",
            show_default="all",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Less of each: all within a minute.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of all draws.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for all that is written.")] = Path("out"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no tables; broken claims only.")] = False,
) -> None:
    """Run experiments on the real cache, and compare with what was published or derived.

    Each answers one question with a table, charts and verdicts. Starts PostgreSQL, Valkey and the app by itself where
    an experiment needs them. One page has it all, OUT/lab.html; each experiment's figures are in OUT/lab-NAME.json, its
    charts in OUT/lab-NAME-CHART.png.

    Exit status: 0 all claims hold that must; 1 one does not; 2 it could not run; 130 interrupted.
    """
    console = Console(highlight=False)
    with terminated_as_interrupted():
        try:
            chosen = find(experiments or [])
            check_folder(out)
            outcomes = _run(chosen, Options(quick, seed), out, None if quiet else console)
            page = out / "lab.html"
            write_text(page, html(outcomes, _command(experiments or [], quick, seed)))
        except (LabError, EmbeddedError, LoadtestError, ReportError) as error:
            raise CommandError(str(error).replace("\n", "; "), UNUSABLE) from error
        except KeyboardInterrupt:
            console.print("interrupted; all is stopped")
            raise typer.Exit(INTERRUPTED) from None
    if not can_draw():
        print("no PNG files: they need Pillow, the extra `lab`", file=sys.stderr)
    if not quiet:
        console.print(
            f"report  {page.resolve().as_uri()}\nfigures {out}/lab-*.json, charts {out}/lab-*.png",
            markup=False,
            soft_wrap=True,
        )
    broken = [
        f"{outcome.experiment.name}: {each.claim}: {each.measured}, not {each.bar}"
        for outcome in outcomes
        for each in outcome.result.verdicts
        if each.standing is Standing.BROKEN
    ]
    if broken:
        raise CommandError("; ".join(broken), BROKEN)


def _run(chosen: Sequence[Experiment], options: Options, out: Path, console: Console | None) -> list[Outcome]:
    outcomes = []
    for experiment in chosen:
        if console is None:
            outcome = run(experiment, options)
        else:
            console.print(f"\n{experiment.name}: {experiment.question}", markup=False, soft_wrap=True, style="bold")
            with ConsoleProgress(console) as progress:
                outcome = run(experiment, Options(options.quick, options.seed, progress))
            for table in outcome.result.tables:
                console.print(table)
            console.print(verdict_table(outcome.result))
            console.print(f"{experiment.name} took {outcome.seconds:,.1f} s")
        _write(outcome, out)
        outcomes.append(outcome)
    return outcomes


def _write(outcome: Outcome, out: Path) -> None:
    name = f"lab-{outcome.experiment.name}"
    write_json(out / f"{name}.json", outcome.as_json())
    if can_draw():
        from app.report.png import png

        for slug, chart in outcome.result.charts.items():
            write_bytes(out / f"{name}-{slug}.png", png(chart))


def can_draw() -> bool:
    """Whether Pillow is there, which draws the PNG files; without it the charts are in the page only."""
    return importlib.util.find_spec("PIL") is not None


def _command(names: Sequence[str], quick: bool, seed: int) -> list[str]:
    return ["python", "-m", "app", "lab", *names, *(["--quick"] if quick else []), "--seed", f"{seed}"]
