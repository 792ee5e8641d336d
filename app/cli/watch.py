"""`python -m app watch`: templates of a running service, and every change of them."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Annotated

import typer

from app.cli import remote
from app.cli.get import as_json
from app.client.endpoint import Endpoint
from app.client.template import News
from app.client.templates import PATIENCE_S, TemplateClient


def watch(
    template_ids: Annotated[list[int], typer.Argument(metavar="ID...", min=1, max=2**63 - 1, show_default=False)],
    target: remote.Target = None,
    json_lines: remote.AsJson = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds for which the service may be out of reach before this gives up.")
    ] = PATIENCE_S,
    tls: remote.UseTls = False,
    tls_ca: remote.Ca = None,
    cert: remote.Cert = None,
    key: remote.Key = None,
    token_env: remote.TokenEnv = None,
) -> None:
    """Print the current version of each template, then every change, until Ctrl-C.

    Where the connection is lost it goes on as soon as the service is back, with what changed meanwhile.

    Exit status: 130 when interrupted; 1 the service refused, or was out of reach for too long; 2 wrong flags.
    """
    remote.check_seconds("--timeout", timeout)
    endpoint = remote.endpoint(target, tls, tls_ca, cert, key, token_env)
    remote.run(_watch(endpoint, template_ids, timeout, json_lines=json_lines), endpoint.target)


async def _watch(endpoint: Endpoint, ids: list[int], patience_s: float, *, json_lines: bool) -> None:
    async with TemplateClient(endpoint) as client, aclosing(client.watch(ids, patience_s=patience_s)) as watching:
        async for news in watching:
            print(_json(news) if json_lines else _line(news), flush=True)


def _json(news: News) -> str:
    template = None if news.template is None else as_json(news.template)
    fields = {"id": news.id, "version": news.version, "versions_skipped": news.versions_skipped, "template": template}
    return json.dumps(fields, ensure_ascii=False)


def _line(news: News) -> str:
    if news.template is None:
        what = f"version {news.version}, deleted" if news.version else "no such template yet"
    else:
        what = f"version {news.version}, {remote.printable(news.template.name)}"
    skipped = f" ({news.versions_skipped} before it left out)" if news.versions_skipped else ""
    return f"template {news.id}: {what}{skipped}"
