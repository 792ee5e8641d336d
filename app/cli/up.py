"""`python -m app up`: the whole stack on embedded servers, until Ctrl-C."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from app.cli.failure import CommandError
from app.cli.serve import settings_or_fail
from app.cli.signals import terminated_as_interrupted, wait_for_interrupt
from app.cli.stack import announced, app_environment, controls, loom_before
from app.embedded.child import Child, ChildEndedError
from app.embedded.errors import EmbeddedError
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.live.live import OWN
from app.live.stage import App, Stage
from app.loadtest.target import KEY_PREFIX
from app.report.files import ReportError

Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")]


def up(
    http_port: Port = 8080,
    grpc_port: Port = 50051,
    postgres_port: Port = 0,
    redis_port: Port = 0,
    loom_port: Port = 9999,
    loom_ui_port: Port = 9998,
    json_line: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON with every address when all is ready.")
    ] = False,
) -> None:
    """Start PostgreSQL, Valkey, the app and Loom on this machine, without Docker, and stay up until Ctrl-C.

    The app's settings are taken from the environment (docs/settings.md), its addresses from the flags.
    """
    console = Console(stderr=True, highlight=False)
    mode = settings_or_fail().mode
    with terminated_as_interrupted():
        try:
            console.print("starting PostgreSQL and Valkey …")
            with (
                EmbeddedStack(postgres_port=postgres_port, redis_port=redis_port) as stack,
                controls(console) as (controller, live),
            ):
                console.print("starting the app and Loom …")
                environment = app_environment(stack, APP_HTTP_PORT=str(http_port), APP_GRPC_PORT=str(grpc_port), **live)
                prefix = environment.get("APP_CACHE_KEY_PREFIX", KEY_PREFIX)
                with (
                    Replica(environment) as replica,
                    loom_before(replica, environment, port=loom_port, ui_port=loom_ui_port) as loom,
                    announced(stack, replica, loom, prefix) as said,
                    controller.serving(
                        Stage(stack.redis, [App(OWN, replica)], controller.token, mode, {"Loom": loom.url})
                    ),
                ):
                    if json_line:
                        print(json.dumps(said), flush=True)
                    else:
                        show_addresses(console, said)
                        console.print("Ctrl-C ends it all.")
                    stay_up(console, replica, loom)
        except ChildEndedError as error:
            if error.has_spoken:
                raise typer.Exit(error.status) from None
            raise CommandError(str(error)) from error
        except (EmbeddedError, ReportError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def stay_up(console: Console, *children: Child) -> None:
    """Until Ctrl-C. Raises `CommandError` where one of them ends by itself."""
    wait_for_interrupt(lambda: all(child.is_running for child in children))
    for child in children:
        if not child.is_running:
            raise CommandError(f"{child.name} ended by itself, with exit status {child.stop()}")
    console.print("stopping …")


def show_addresses(console: Console, said: dict[str, str | int]) -> None:
    """The addresses of a running stack, for people."""
    console.print(
        f"\n  live page   {said['http_url']}/\n"
        f'  try         curl "{said["http_url"]}/template-details?id=1"\n'
        f"  API         {said['http_url']}/docs\n"
        f"  metrics     {said['http_url']}/metrics\n"
        f"  gRPC        {said['grpc_target']}\n"
        f"  Loom        {said['loom_url']} shows the gRPC calls that come by way of {said['loom_target']}:\n"
        f"              python -m app get 1 --target {said['loom_target']}\n"
        f"  PostgreSQL  {said['database_url']}\n"
        f"  Redis       {said['redis_url']}\n",
        markup=False,
    )
