"""The live page that the settings ask for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

from fastapi import APIRouter

from app import __version__
from app.cache.loader import Loader
from app.live.action_routes import action_routes
from app.live.controls import Controls
from app.live.greeting import Greeting
from app.live.here import Here
from app.live.http import Place
from app.live.hub import Hub
from app.live.live import INTERVAL_S, OWN, Live
from app.live.meter import Meter
from app.live.peers import Peer, Peers
from app.live.recorder import Recorder
from app.live.reports import Reports, report_routes
from app.live.routes import event_routes, page_routes
from app.proto.template.v1 import template_pb2
from app.service import TemplateService
from app.settings import Settings
from app.storage.templates import TemplateRepository
from app.telemetry.metrics import SECONDS, Metrics

ROUTES: Final = frozenset({"/template-details", "/templates"})


def live_page(settings: Settings, metrics: Metrics, stack: AsyncExitStack, close_timeout_s: float) -> Live:
    """Asleep until somebody looks."""
    hub, mode = Hub(metrics.live_page), settings.mode.value
    live = Live(
        hub=hub,
        meter=Meter(metrics, routes=ROUTES, methods=_unary_methods()),
        mode=mode,
        bounds_s=SECONDS,
        recorder=Recorder(lambda drawn: hub.stampede(OWN, drawn, own=True), app=OWN, mode=mode),
        peers=Peers([Peer(name, Place.of(url), OWN, partial(hub.stampede, own=False)) for name, url in settings.peers]),
    )
    stack.push_async_callback(live.aclose, close_timeout_s)
    return live


def live_routes(
    settings: Settings,
    live: Live,
    metrics: Metrics,
    service: TemplateService,
    loader: Loader,
    repository: TemplateRepository,
) -> list[APIRouter]:
    """The page, its events, what can be done on it, the reports."""
    controls = None
    token = settings.live_controls_token
    if settings.live_controls_url:
        controls = Controls(Place.of(settings.live_controls_url), token, live.hub.mark)
    reports = Reports(Path(settings.live_reports_dir) if settings.live_reports_dir else None)
    greeting = Greeting(__version__, settings.mode.value, INTERVAL_S, controls, reports, settings.links)
    here = Here(service, loader.expire, repository, settings.database_statement_timeout_s)
    return [
        page_routes(),
        event_routes(live, greeting),
        action_routes(controls, here, token, metrics.live_page, settings.http_receive_timeout_s),
        report_routes(reports),
    ]


def _unary_methods() -> frozenset[str]:
    """Those of the template service whose calls are one request and one answer."""
    service = template_pb2.DESCRIPTOR.services_by_name["TemplateService"]
    return frozenset(
        f"{service.full_name}/{method.name}"
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    )
