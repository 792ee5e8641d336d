"""`python -m app get`: one template from a running service."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli import remote
from app.client.endpoint import Endpoint
from app.client.template import Details, Template
from app.client.templates import TIMEOUT_S, TemplateClient


def get(
    template_id: remote.Id,
    target: remote.Target = None,
    json_line: remote.AsJson = False,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole, tries included.")] = TIMEOUT_S,
    tls: remote.UseTls = False,
    tls_ca: remote.Ca = None,
    cert: remote.Cert = None,
    key: remote.Key = None,
    token_env: remote.TokenEnv = None,
) -> None:
    """Print a template of a running service, read over gRPC.

    Exit status: 0 all well; 1 the call failed, or there is no such template; 2 wrong flags; 130 interrupted.
    """
    remote.check_seconds("--timeout", timeout)
    endpoint = remote.endpoint(target, tls, tls_ca, cert, key, token_env)
    details = remote.run(_get(endpoint, template_id, timeout), endpoint.target)
    if json_line:
        fields = {**as_json(details.template), "source": details.source, "age_s": details.age_s}
        print(json.dumps(fields, ensure_ascii=False))
        return
    template = details.template
    print(
        f"id       {template.id}\n"
        f"name     {remote.printable(template.name)}\n"
        f"version  {template.version}, of {template.updated_at:%Y-%m-%d %H:%M:%S} UTC\n"
        f"source   {details.source}, {details.age_s:.3g} s old\n\n"
        f"{remote.printable(template.body)}"
    )


def as_json(template: Template) -> dict[str, str | int]:
    """As HTTP tells it."""
    return {
        "id": template.id,
        "name": template.name,
        "body": template.body,
        "version": template.version,
        "updated_at": template.updated_at.isoformat().replace("+00:00", "Z"),
    }


async def _get(endpoint: Endpoint, template_id: int, timeout_s: float) -> Details:
    async with TemplateClient(endpoint, timeout_s=timeout_s) as client:
        return await client.get(template_id)
