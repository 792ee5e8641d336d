"""A real grpcurl lists, describes and calls all of a real server: in plain text, over TLS and over mutual TLS."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.grpc.certificates import Authority
from tests.faults import grpcurl
from tests.faults.conftest import Serve
from tests.faults.grpcurl import Grpcurl

pytestmark = pytest.mark.skipif(grpcurl.binary() is None, reason="there is no grpcurl for this machine")

SERVICE = "template.v1.TemplateService"
SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVICE,
]
METHODS = [
    "CreateTemplate",
    "DeleteTemplate",
    "GetTemplateDetails",
    "ImportTemplates",
    "SyncTemplates",
    "UpdateTemplate",
    "WatchTemplates",
]
DEADLINE_EXCEEDED, INVALID_ARGUMENT, NOT_FOUND = 64 + 4, 64 + 3, 64 + 5


@pytest.fixture
def curl(request: pytest.FixtureRequest, serve: Serve, database_url: str, redis_url: str, tmp_path: Path) -> Grpcurl:
    """For a server in a process of its own."""
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client")
    settings: dict[str, Any] = {}
    flags: Sequence[str] = ["-plaintext"]
    if request.param != "plain":
        settings |= {"grpc_tls_cert_file": server.cert, "grpc_tls_key_file": server.key}
        flags = ["-cacert", str(authority.file)]
    if request.param == "mTLS":
        settings |= {"grpc_tls_client_ca_file": authority.file}
        flags = [*flags, "-cert", str(client.cert), "-key", str(client.key)]
    return Grpcurl(serve(database_url, redis_url, **settings).grpc_target, flags)


@pytest.mark.parametrize("curl", ["plain", "TLS"], indirect=True)
def test_grpcurl_lists_describes_and_calls_all_of_it(curl: Grpcurl) -> None:
    # At the same time: each run is a process of its own.
    with ThreadPoolExecutor() as threads:
        parts = (listed, described, read_and_written, imported_and_watched, synced, asked_of_health_and_reflection)
        for done in [threads.submit(part, curl) for part in parts]:
            done.result()


@pytest.mark.parametrize("curl", ["mTLS"], indirect=True)
def test_over_mutual_tls_grpcurl_needs_a_certificate(curl: Grpcurl) -> None:
    assert curl.run("list").lines == SERVICES
    assert curl.call(f"{SERVICE}/GetTemplateDetails", {"id": 1}).answers[0]["template"]["id"] == "1"
    without = replace(curl, flags=curl.flags[:2]).run("list", flags=["-connect-timeout", "1"])
    assert (without.status, without.out) == (1, "")


def listed(curl: Grpcurl) -> None:
    assert curl.run("list").lines == SERVICES
    assert curl.run("list", SERVICE).lines == [f"{SERVICE}.{method}" for method in METHODS]


def described(curl: Grpcurl) -> None:
    for service in SERVICES:
        assert f"{service} is a service:" in curl.run("describe", service).out
    for method in METHODS:
        assert f"rpc {method} (" in curl.run("describe", f"{SERVICE}.{method}").out
    assert "string name = 2;" in curl.run("describe", "template.v1.Template").out
    assert "SOURCE_L1 = 1;" in curl.run("describe", "template.v1.Source").out
    unknown = curl.run("describe", "template.v1.Nix")
    assert (unknown.status, "Symbol not found" in unknown.err) == (1, True)


def read_and_written(curl: Grpcurl) -> None:
    [created] = curl.call(f"{SERVICE}/CreateTemplate", {"template": {"name": "a", "body": "ä"}}).answers
    template_id = created["template"]["id"]
    update = {"template": {"id": template_id, "name": "b"}, "update_mask": {"paths": ["name"]}, "expected_version": 1}
    [updated] = curl.call(f"{SERVICE}/UpdateTemplate", update).answers
    assert (updated["template"]["name"], updated["template"]["body"]) == ("b", "ä")
    [got] = curl.call(f"{SERVICE}/GetTemplateDetails", {"id": template_id}).answers
    assert got["template"] == updated["template"]
    [deleted] = curl.call(f"{SERVICE}/DeleteTemplate", {"id": template_id}).answers
    assert deleted["version"] == "3"
    assert curl.call(f"{SERVICE}/GetTemplateDetails", {"id": template_id}).status == NOT_FOUND
    refused = curl.call(f"{SERVICE}/GetTemplateDetails", {"id": 0})
    assert refused.status == INVALID_ARGUMENT
    assert "id: must be a whole number" in refused.err
    # Which it can show only because reflection knows the messages that are in the details.
    assert "type.googleapis.com/google.rpc.BadRequest" in refused.err
    assert '"field_violations":[{"field":"id"' in refused.err


def imported_and_watched(curl: Grpcurl) -> None:
    imported = curl.call(
        f"{SERVICE}/ImportTemplates", {"templates": [{"name": "x"}, {"name": "y"}]}, {"templates": [{"name": "z"}]}
    )
    [summary] = imported.answers
    assert (summary["imported"], summary["bytes"]) == ("3", "3")
    watched = curl.call(f"{SERVICE}/WatchTemplates", {"ids": [summary["first_id"]]}, flags=["-max-time", "6"])
    assert watched.status == DEADLINE_EXCEEDED  # it goes on for as long as the client lets it
    [told] = watched.answers
    assert told["state"]["template"]["name"] == "x"


def synced(curl: Grpcurl) -> None:
    conversation = curl.call(f"{SERVICE}/SyncTemplates", {"tag": 7, "get": {"id": 1}}, {"tag": 8, "get": {"id": 0}})
    answers = {answer["tag"]: answer for answer in conversation.answers}
    assert answers["7"]["state"]["state"]["id"] == "1"
    assert answers["8"]["error"]["code"] == INVALID_ARGUMENT - 64


def asked_of_health_and_reflection(curl: Grpcurl) -> None:
    assert curl.call("grpc.health.v1.Health/Check", {"service": SERVICE}).answers == [{"status": "SERVING"}]
    [statuses] = curl.call("grpc.health.v1.Health/List", {}).answers
    assert statuses["statuses"][SERVICE] == {"status": "SERVING"}
    for version in ("v1", "v1alpha"):
        [answer] = curl.call(
            f"grpc.reflection.{version}.ServerReflection/ServerReflectionInfo", {"list_services": ""}
        ).answers
        assert [service["name"] for service in answer["list_services_response"]["service"]] == SERVICES
