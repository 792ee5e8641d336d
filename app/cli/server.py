"""Serving HTTP and gRPC from one event loop until a signal, then draining."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn

from app.api.grpc.tls import TlsError
from app.api.http.protocol import BoundedHttpProtocol
from app.bootstrap.runtime import Runtime, running
from app.cli import garbage, syn_filter
from app.cli.failure import CommandError
from app.domain.errors import StorageUnavailableError
from app.health import Status
from app.settings import Settings
from app.storage.errors import MigrationError, StorageConfigurationError
from app.telemetry.tracing import TracingError
from app.tracing_settings import TracingSettings

HEALTH_INTERVAL_S = 1.0
"""How often gRPC's health service is brought up to date."""
LAST_WORDS_S = 0.5
"""How long what is given up may take to end."""
LAST_HANDSHAKES_S = 0.1
"""How long connections that had begun when new ones were turned away get to be established."""
LAST_REQUESTS_S = 0.2
"""How long connections accepted just before the listener closed get to send their request."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service listens, as clients on this machine reach it."""

    http_url: str
    grpc_target: str


class _Server(uvicorn.Server):
    """uvicorn without its signal handling: the signals are for all that this process serves."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def stop_accepting(self, listener: socket.socket) -> None:
        """Close the listener; who has connected already is served.

        Closing resets the connections that the kernel has established and nobody has accepted. So they are accepted
        here, all at once: through the event loop they would come too late.
        """
        waiting = []
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting.append(listener.accept()[0])
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    async def give_up(self) -> None:
        """Cancel what is in flight, and give it a moment to say so to its clients."""
        self.force_exit = True
        tasks = list(self.server_state.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS_S)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself calls it
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


async def serve(
    settings: Settings, on_ready: Callable[[Address], None], tracing: TracingSettings | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` is called once both ports are listening.

    A second signal ends the draining at once; one that comes while the service starts ends the start. Raises
    `CommandError`, in one line, where the service can't start.
    """
    stop = _Stop()
    with contextlib.closing(_listen(settings.http_host, settings.http_port)) as listener:
        try:
            async with running(settings, tracing) as runtime:
                await _serve(runtime, listener, stop, on_ready)
        except (
            StorageUnavailableError,
            StorageConfigurationError,
            MigrationError,
            TlsError,
            TracingError,
        ) as error:
            raise CommandError(str(error)) from error
        except asyncio.CancelledError:
            if not stop.asked.is_set():
                raise


class _Stop:
    """The first signal and the second. Until `serving` is called the first one cancels the task that made this."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.now = asyncio.Event()
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def serving(self) -> None:
        """From now on there is something to drain."""
        self._starting = None

    async def wait_at_most(self, seconds: float) -> None:
        """Wait so long, or until the second signal."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.now.wait(), seconds)

    def _signalled(self) -> None:
        (self.now if self.asked.is_set() else self.asked).set()
        if self._starting is not None:
            self._starting.cancel()


async def _serve(runtime: Runtime, listener: socket.socket, stop: _Stop, on_ready: Callable[[Address], None]) -> None:
    settings = runtime.settings
    try:
        grpc_port = await runtime.grpc.start()
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from error
    # Its timeouts are passed on as they are, and need not be the whole numbers that it is typed for.
    server = _Server(
        uvicorn.Config(
            runtime.http_app,
            http=cast("type[asyncio.Protocol]", partial(BoundedHttpProtocol, runtime.http_arrivals)),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=settings.http_receive_timeout_s,  # type: ignore[arg-type]
            timeout_graceful_shutdown=settings.drain_timeout_s,  # type: ignore[arg-type]
        )
    )
    await _tell_health(runtime)
    serving = asyncio.create_task(server.serve([listener]))
    following = asyncio.create_task(_follow_health(runtime))
    collecting = asyncio.create_task(garbage.collect_when_quiet(runtime.metrics.requests_in_hand))
    asked = asyncio.create_task(stop.asked.wait())
    stop.serving()
    try:
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells it by this attribute only
            await asyncio.sleep(0.005)
        garbage.settle()
        if server.started:
            on_ready(_address(settings, listener, grpc_port))
        await asyncio.wait({serving, asked, following}, return_when=asyncio.FIRST_COMPLETED)
        await _drain(runtime, server, listener, serving, stop)
        if following.done():
            await following  # it ends by an error only
    finally:
        for task in (following, collecting, asked, serving):
            task.cancel()
        await asyncio.gather(following, collecting, asked, serving, return_exceptions=True)


async def _drain(
    runtime: Runtime, server: _Server, listener: socket.socket, serving: asyncio.Task[None], stop: _Stop
) -> None:
    """Not ready first, then no new connections, then no new requests; what is in flight finishes."""
    runtime.health.draining = True
    runtime.metrics.drain()
    runtime.grpc.set_serving(False)
    runtime.live.end_streams()
    await stop.wait_at_most(runtime.settings.drain_delay_s)
    if server.started:
        if syn_filter.attach(listener):
            await stop.wait_at_most(LAST_HANDSHAKES_S)
        await server.stop_accepting(listener)
    await stop.wait_at_most(LAST_REQUESTS_S)
    server.should_exit = True
    timeout_s = runtime.settings.drain_timeout_s
    ended = asyncio.gather(serving, runtime.grpc.drain(timeout_s))
    impatient = asyncio.create_task(stop.now.wait())
    either: set[asyncio.Future[Any]] = {ended, impatient}
    await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not ended.done():
        await asyncio.gather(server.give_up(), runtime.grpc.drain(0))
        await asyncio.wait({ended}, timeout=LAST_WORDS_S)
    if not ended.done():
        ended.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ended


async def _follow_health(runtime: Runtime) -> None:
    while True:
        await asyncio.sleep(HEALTH_INTERVAL_S)
        await _tell_health(runtime)


async def _tell_health(runtime: Runtime) -> None:
    report = await runtime.health.report()
    runtime.grpc.set_serving(report.status is Status.READY)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CommandError(f"HTTP can't listen on {host}:{port}: {error.strerror or error}") from error


def _address(settings: Settings, listener: socket.socket, grpc_port: int) -> Address:
    http_port = listener.getsockname()[1]
    return Address(
        http_url=f"http://{_reachable(settings.http_host)}:{http_port}",
        grpc_target=f"{_reachable(settings.grpc_host)}:{grpc_port}",
    )


def _reachable(host: str) -> str:
    if host in ("0.0.0.0", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
