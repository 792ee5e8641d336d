"""Loom's only object wiring: from the configuration to a proxy that runs, with its probes beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import Receive, Scope, Send

from app.concurrency.breaker import CircuitBreaker
from app.loom.capture import Capture, CaptureConfig, CountedAndRecorded, capturing
from app.loom.grpcurl import Target
from app.loom.inspector.app import inspector
from app.loom.inspector.guard import Guard, is_loopback
from app.loom.inspector.replays import Replays
from app.loom.inspector.stats import Stats
from app.loom.inspector.views import Views
from app.loom.mutation import Mutations
from app.loom.probes import Health, probes
from app.loom.proxy.limits import Limits
from app.loom.proxy.link import GuardedUpstream
from app.loom.proxy.server import Proxy
from app.loom.proxy.upstream import Upstream


class ListenError(Exception):
    """An address can't be listened on; the message says which and why."""


PROBE_DIAL_S = 1.0
"""What finding out about the backend may take: probes give up soon."""
LAST_ANSWERS_S = 1.0


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address."""

    host: str
    port: int

    @property
    def here(self) -> HostPort:
        """The same for clients of this machine, which can't open the address that stands for all."""
        anywhere = self.host in ("0.0.0.0", "::")  # noqa: S104 - told apart, not listened on
        return HostPort("localhost", self.port) if anywhere else self

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """What Loom is told: where it listens, what stands behind it, and how both are encrypted."""

    listen: HostPort
    backend: HostPort
    ui: HostPort
    listen_tls: ssl.SSLContext | None = None
    listen_certificate: Path | None = None
    """Its file, which grpcurl commands name as what to trust."""
    backend_tls: ssl.SSLContext | None = None
    rules: Path | None = None
    """The file of rules."""
    authority: str | None = None
    """What the backend is told in place of each call's `:authority`."""
    stop_s: float = 30.0
    capture: CaptureConfig = field(default_factory=CaptureConfig)
    is_ui_open: bool = False
    """Whether the inspector asks for no token off loopback: only loopback publishes its port."""
    limits: Limits = field(default_factory=Limits)
    breaker_failures: int = 5
    """In a row: failed dials, or connections that the backend has lost under calls."""
    breaker_open_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Loom:
    """A proxy that runs. The ports are those that it really listens on."""

    listen: HostPort
    ui: HostPort
    mutations: Mutations
    token: str | None
    """What the inspector asks for, where it listens off loopback."""
    _capture: Capture
    _catch_up: Callable[[], None]

    @property
    def capture(self) -> Capture:
        """With all that has passed until now."""
        self._catch_up()
        return self._capture

    @property
    def link(self) -> str:
        """Where a browser of this machine sees the calls."""
        return f"http://{self.ui.here}/" + (f"?token={self.token}" if self.token else "")


class _Server(uvicorn.Server):
    """uvicorn without its signal handling."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Loom]:
    """Run Loom; on leaving, its clients are asked to go and their calls finish, at most `stop_s` seconds.

    Raises `ListenError`, `RulesError`, and `SessionError` where the session's file can't be used. The backend need not
    be up.
    """
    metrics = CountedAndRecorded()
    backend, limits = config.backend, config.limits
    upstream = Upstream(
        backend.host, backend.port, timeout_s=limits.dial_s, handshake_s=limits.handshake_s, tls=config.backend_tls
    )
    breaker = CircuitBreaker(
        failures=config.breaker_failures, open_s=config.breaker_open_s, on_change=metrics.breaker_changed
    )
    probe_s = min(PROBE_DIAL_S, limits.dial_s)
    probed = Upstream(backend.host, backend.port, timeout_s=probe_s, handshake_s=probe_s, tls=config.backend_tls)
    health = Health(GuardedUpstream(probed, breaker))
    mutations = Mutations(config.rules, metrics)
    proxy = Proxy(upstream, metrics, limits=limits, breaker=breaker, interception=mutations, authority=config.authority)
    mutations.on_switched = proxy.switch_lanes
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listen(config.ui)))
        capture = await stack.enter_async_context(capturing(config.capture, upstream, metrics, [stats := Stats()]))
        mutations.schemas = capture.schemas
        try:
            port = await proxy.start(config.listen.host, config.listen.port, tls=config.listen_tls)
        except OSError as error:
            raise ListenError(f"can't listen on {config.listen}: {_reason(error)}") from error
        listen = HostPort(config.listen.host, port)
        thread = ThreadPoolExecutor(1, "loom-inspector")
        stack.callback(thread.shutdown, wait=False, cancel_futures=True)

        def state() -> dict[str, object]:
            return {
                "listen": str(listen.here),
                "backend": str(backend),
                "breaker": health.breaker,
                "breakerRetryS": round(breaker.retry_after_s, 1),
                "breakerFailures": config.breaker_failures,
                "breakerOpenS": config.breaker_open_s,
                "rules": mutations.state(),
            }

        views = Views(capture.schemas, _target(config, listen))
        page = inspector(
            capture,
            views,
            stats,
            probes(health, metrics),
            thread,
            replay=Replays(upstream, views, capture.schemas),
            state=state,
            reload=mutations.reload,
        )

        async def up_to_date(scope: Scope, receive: Receive, send: Send) -> None:
            proxy.catch_up()  # whoever has seen a call's answer finds it here
            await page(scope, receive, send)

        token = None if config.is_ui_open or is_loopback(str(config.ui)) else secrets.token_urlsafe(24)
        server = _Server(
            uvicorn.Config(
                Guard(up_to_date, token=token),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=int(LAST_ANSWERS_S),
            )
        )
        serving = asyncio.create_task(server.serve([listener]))
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells it by this attribute only
                await asyncio.sleep(0.005)
            ui = HostPort(config.ui.host, listener.getsockname()[1])
            yield Loom(listen, ui, mutations, token, capture, proxy.catch_up)
        finally:
            health.is_stopping = True
            await proxy.stop(config.stop_s)
            capture.feed.close()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=2 * LAST_ANSWERS_S)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


def _target(config: Config, listen: HostPort) -> Target:
    """Where grpcurl commands call."""
    tls, certificate = config.listen_tls, config.listen_certificate
    return Target(
        str(listen.here),
        tls=tls is not None,
        ca_file="" if certificate is None else str(certificate.absolute()),
        client_certificate=tls is not None and tls.verify_mode is ssl.CERT_REQUIRED,
    )


def _listen(address: HostPort) -> socket.socket:
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise ListenError(f"can't listen on {address}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    """Without what asyncio and `socket` put around it."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)
