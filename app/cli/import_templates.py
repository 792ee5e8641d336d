"""`python -m app import`: templates from a file into a running service."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, BinaryIO

import typer

from app.cli import remote
from app.cli.failure import CommandError
from app.cli.ndjson import checked, opened, templates
from app.client.endpoint import Endpoint
from app.client.errors import DeadlineExceededError, UnavailableError
from app.client.template import Imported
from app.client.templates import IMPORT_TIMEOUT_S, TemplateClient


def import_templates(
    file: Annotated[str, typer.Argument(metavar="FILE.ndjson", help="- is standard input.", show_default=False)],
    target: remote.Target = None,
    json_line: remote.AsJson = False,
    request_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="That of an import whose outcome is not known: it is not done twice."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole.")] = IMPORT_TIMEOUT_S,
    tls: remote.UseTls = False,
    tls_ca: remote.Ca = None,
    cert: remote.Cert = None,
    key: remote.Key = None,
    token_env: remote.TokenEnv = None,
) -> None:
    """Make templates in a running service: all of a file, or, where anything is wrong with it, none.

    Each line is an object such as {"name": "welcome", "body": "Dear {{name}}"}. The whole file is checked before
    anything is sent.

    Exit status: 0 all imported; 1 the call failed; 2 wrong flags, or a wrong line; 130 interrupted.
    """
    remote.check_seconds("--timeout", timeout)
    endpoint = remote.endpoint(target, tls, tls_ca, cert, key, token_env)
    try:
        with opened(file) as source:
            checked(source, file)
            work = _import(endpoint, source, file, request_id or str(uuid.uuid4()), timeout)
            imported = remote.run(work, endpoint.target)
    except KeyboardInterrupt:
        raise typer.Exit(remote.INTERRUPTED) from None
    if json_line:
        fields = {
            "imported": imported.count,
            "bytes": imported.bytes,
            "first_id": imported.first_id,
            "last_id": imported.last_id,
        }
        print(json.dumps(fields))
        return
    ids = f", ids from {imported.first_id} to {imported.last_id}" if imported.count else ""
    print(f"templates imported: {imported.count:,}, {imported.bytes:,} bytes{ids}")


async def _import(endpoint: Endpoint, source: BinaryIO, file: str, request_id: str, timeout_s: float) -> Imported:
    async with TemplateClient(endpoint) as client:
        try:
            return await client.import_templates(templates(source, file), request_id=request_id, timeout_s=timeout_s)
        except (UnavailableError, DeadlineExceededError) as error:
            raise CommandError(
                f"{error.text} ({error.status.name}); whether it was imported is not known: "
                f"to try again without doing it twice, add --request-id {request_id}"
            ) from error
