"""The live page that the settings ask for."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final

from app import __version__
from app.live.http import Place
from app.live.hub import Hub
from app.live.live import INTERVAL_S, OWN, Live
from app.live.meter import Meter
from app.live.peers import Peer, Peers
from app.live.recorder import Recorder
from app.proto.template.v1 import template_pb2
from app.settings import Settings
from app.telemetry.metrics import SECONDS, Metrics

ROUTES: Final = frozenset({"/template-details", "/templates"})


def live_page(settings: Settings, metrics: Metrics, stack: AsyncExitStack, close_timeout_s: float) -> Live:
    """Asleep until somebody looks."""
    meter = Meter(metrics, routes=ROUTES, methods=_unary_methods())

    def hello() -> dict[str, Any]:
        return {
            "version": __version__,
            "app": settings.mode.value,
            "interval_s": INTERVAL_S,
            "controls": None,
            "reports": [],
            "links": [],
        }

    hub, mode = Hub(metrics.live_page), settings.mode.value
    recorder = Recorder(lambda drawn: hub.stampede(OWN, drawn, own=True), app=OWN, mode=mode)
    peers = Peers([Peer(name, Place.of(url), OWN, partial(hub.stampede, own=False)) for name, url in settings.peers])
    live = Live(hub=hub, meter=meter, mode=mode, bounds_s=SECONDS, recorder=recorder, peers=peers, hello=hello)
    stack.push_async_callback(live.aclose, close_timeout_s)
    return live


def _unary_methods() -> frozenset[str]:
    """Those of the template service whose calls are one request and one answer."""
    service = template_pb2.DESCRIPTOR.services_by_name["TemplateService"]
    return frozenset(
        f"{service.full_name}/{method.name}"
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    )
