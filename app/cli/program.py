"""`python -m app`: the commands, put together."""

from __future__ import annotations

import sys

import typer

from app import __version__
from app.cli.demo import demo
from app.cli.failure import CommandError
from app.cli.get import get
from app.cli.import_templates import import_templates
from app.cli.lab import lab
from app.cli.loadtest import loadtest
from app.cli.loom import loom
from app.cli.migrate import migrate
from app.cli.scenario import scenario
from app.cli.serve import serve
from app.cli.up import up
from app.cli.watch import watch

NAME = "python -m app"

program = typer.Typer(
    name=NAME,
    help="See a cache stampede, and cure it.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, up, loadtest, scenario, lab, serve, loom, migrate, get, watch):
    program.command()(command)
program.command("import")(import_templates)


@program.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """Run the command line. A failure that was foreseen ends in one line and a non-zero exit status."""
    arguments = sys.argv[1:]
    try:
        status = program(arguments or ["--help"], prog_name=NAME, standalone_mode=False)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        # Flags that there are not, or with values that can't be: typer has no public name for its base of these.
        words = " ".join(error.format_message().split()).removesuffix(".")
        context = getattr(error, "ctx", None)
        print(f"error: {words}; see {NAME if context is None else context.command_path} --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if arguments else 2)
