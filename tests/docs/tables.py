"""The tables in docs/ that are made from the code: `python -m tests.docs` writes them anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import typer
from google.rpc.error_details_pb2 import ErrorInfo
from prometheus_client.metrics import MetricWrapperBase
from typer.core import TyperOption

from app.api.grpc import statuses
from app.api.http import problems
from app.api.http.app import create_app
from app.api.http.edge import Edge
from app.cli.loadtest import loadtest
from app.cli.loom import loom
from app.domain.ports import Cache, Repository
from app.health import Health
from app.loom.metrics import LoomMetrics
from app.service import TemplateService
from app.settings import ENV_PREFIX, Settings
from app.telemetry.metrics import Metrics
from app.telemetry.plain import PlainMetric
from app.tracing_settings import OTEL_PREFIX, TracingSettings
from tests.api.grpc.test_statuses import details, instance
from tests.docs import api, cases

ROOT = Path(__file__).parents[2]

UNITS = {"_s": "s", "_ms": "ms", "_bytes": "bytes"}
"""What the end of a setting's name says of its unit."""


def settings(cls: type[Settings] | type[TracingSettings] = Settings, prefix: str = ENV_PREFIX) -> str:
    """Every setting: its variable, default, what it takes, what it means."""
    schema = cls.model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        spec = schema["$defs"][field["$ref"].rpartition("/")[2]] | field if "$ref" in field else field
        default = spec["default"]
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        rows.append(
            [_code(prefix + name.upper()), _code(shown) if shown else "", _takes(name, spec), spec["description"]]
        )
    return _table(["Variable", "Default", "Takes", "Meaning"], rows)


def metrics() -> str:
    """Every metric of the service's own: its name, type, labels, meaning."""
    declared = Metrics(mode="singleflight", version="0", ttl_s=30)
    return _metrics([value for part in (declared, declared.calls, declared.live_page) for value in vars(part).values()])


def loom_metrics() -> str:
    """Every metric of Loom's own."""
    return _metrics(LoomMetrics().registry._collector_to_names)


def _metrics(collectors: Iterable[object]) -> str:
    rows = []
    for collector in collectors:
        if isinstance(collector, PlainMetric):
            name = f"{collector.name}_total" if collector.type == "counter" else collector.name
            labels = ", ".join(_code(label) for label in collector.labels)
            rows.append([_code(name), collector.type, labels, collector.documentation])
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(_code(label) for label in collector._labelnames)
            rows.append([_code(name), family.type, labels, family.documentation])
    return _table(["Metric", "Type", "Labels", "Meaning"], rows)


def http_endpoints() -> str:
    """Every path that HTTP clients may ask for, by what its OpenAPI description says."""
    metrics = Metrics(mode="singleflight", version="0", ttl_s=30)
    service = TemplateService(cast("Repository", None), cast("Cache", None))
    edge = create_app(
        service,
        health=Health({}),
        metrics=metrics,
        version="0",
        max_body_bytes=1,
        max_age_s=0,
        receive_timeout_s=1,
    )
    paths = cast("Edge", edge)._app.openapi()["paths"]  # type: ignore[attr-defined]
    rows: dict[tuple[str, str], list[str]] = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            rows.setdefault((path, operation["summary"]), []).append(method.upper())
    return _table(
        ["Method", "Path", "What"],
        [[", ".join(map(_code, methods)), _code(path), summary] for (path, summary), methods in rows.items()],
    )


def http_errors() -> str:
    """Every error with the status that HTTP gives it."""
    return _table(
        ["Status", "`code`", "When"],
        [
            # The phrases are left out: Python changes them from version to version.
            [str(status.value), _code(vars(cls)["code"]), _summary(cls)]
            for cls, status in sorted(problems.STATUSES.items(), key=lambda item: item[1])
        ],
    )


def loadtest_flags() -> str:
    """Every flag of the load test: its default, the variable that stands in for it, what it means."""
    return _flags(loadtest)


def loom_flags() -> str:
    """Every flag of Loom."""
    return _flags(loom)


def _flags(command: Callable[..., None]) -> str:
    cli = typer.Typer(add_completion=False)
    cli.command()(command)
    rows = []
    for option in typer.main.get_command(cli).params:
        if not isinstance(option, TyperOption) or option.hidden or "--help" in option.opts:
            continue
        default = ""
        if option.default is not None and not option.is_flag:
            default = _code(option.default if isinstance(option.default, str) else f"{option.default:g}")
        rows.append(
            [_code(option.opts[0]), default, _code(str(option.envvar)) if option.envvar else "", option.help or ""]
        )
    return _table(["Flag", "Default", "Or by", "Meaning"], rows)


def grpc_errors() -> str:
    """Every error with the status that gRPC gives it, and with the details that go with it."""
    rows = []
    for cls, status in sorted(statuses.STATUSES.items(), key=lambda item: item[1].value[0]):
        info, *others = details(statuses.rpc_status(instance(cls)))
        assert isinstance(info, ErrorInfo)
        names = ", ".join(_code(other.DESCRIPTOR.name) for other in others)
        rows.append([_code(status.name), _code(info.reason), names, _summary(cls)])
    return _table(["Status", "Reason", "Besides", "When"], rows)


def tracing_settings() -> str:
    """The same of those that are OpenTelemetry's."""
    return settings(TracingSettings, OTEL_PREFIX)


BLOCKS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("docs/settings.md", "settings"): settings,
    ("docs/tracing.md", "settings"): tracing_settings,
    ("docs/metrics.md", "metrics"): metrics,
    ("docs/api.md", "api"): api.reference,
    ("docs/http.md", "endpoints"): http_endpoints,
    ("docs/http.md", "errors"): http_errors,
    ("docs/grpc.md", "errors"): grpc_errors,
    ("docs/loadtest.md", "flags"): loadtest_flags,
    ("docs/loom.md", "flags"): loom_flags,
    ("docs/loom.md", "metrics"): loom_metrics,
    ("docs/singleflight.md", "cases"): cases.listed,
}
"""By file and by the name in the comments that stand around the table there."""


def read_block(file: str, name: str) -> str:
    """What stands in `file` between the comments of this name. Raises `ValueError` where they are missing."""
    start, end = _bounds((ROOT / file).read_text(encoding="utf-8"), name)
    return (ROOT / file).read_text(encoding="utf-8")[start:end].strip("\n")


def write_block(file: str, name: str, table: str) -> bool:
    """Puts `table` there. Returns whether that changed anything."""
    text = (ROOT / file).read_text(encoding="utf-8")
    start, end = _bounds(text, name)
    changed = f"{text[:start]}\n{table}\n{text[end:]}"
    (ROOT / file).write_text(changed, encoding="utf-8")
    return changed != text


def _bounds(text: str, name: str) -> tuple[int, int]:
    opening, closing = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    return text.index(opening) + len(opening), text.index(closing)


def _summary(cls: type[Exception]) -> str:
    return " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())


def _takes(name: str, spec: Mapping[str, Any]) -> str:
    if "enum" in spec:
        return ", ".join(_code(choice) for choice in spec["enum"] if choice)
    if spec["type"] == "boolean":
        return "`true`, `false`"
    if spec["type"] in {"integer", "number"}:
        unit = next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
        bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        limits = ", ".join(f"{sign} {spec[key]:,.15g}" for key, sign in bounds.items() if key in spec)
        return f"{'whole number, ' if spec['type'] == 'integer' else ''}{limits} {unit}".rstrip()
    choice = re.fullmatch(r"\^\(([a-z|]+)\)\$", spec.get("pattern", ""))
    if choice is not None:
        return ", ".join(map(_code, choice[1].split("|")))
    return _code(spec["pattern"]) if "pattern" in spec else "text"


def _code(text: str) -> str:
    return f"`{text}`"


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
