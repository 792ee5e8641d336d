"""The HTTP application over fake ports, without a server; and a real one to speak to by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.api.http.app import create_app
from app.api.http.edge import Edge
from app.embedded.replica import Replica
from app.embedded.stack import EmbeddedStack
from app.health import Health
from app.service import TemplateService
from app.telemetry.metrics import Metrics
from tests.api.http.conformance import conforms
from tests.api.http.fake_ports import FakeCache, MemoryRepository, template

MAX_BODY_BYTES = 800_000
"""Room for the largest template, written with an escape for every character."""
PATIENCE_S = 60.0
"""How long a real server waits for a head, and then for a body, and for its own parts."""
RECEIVE_TIMEOUT_S = 2.0
"""How long a hasty one waits for a head, and then for a body."""


@dataclass
class Dependency:
    """What `/ready` asks."""

    up: bool = True

    async def answers(self) -> bool:
        return self.up


class Api:
    """`client` speaks to `app`, whose templates 1 and 2 are in `repository`, seen through `cache`."""

    def __init__(self) -> None:
        self.repository = MemoryRepository()
        self.cache = FakeCache(self.repository)
        self.redis, self.database = Dependency(), Dependency()
        self.health = Health({"cache": self.redis.answers, "database": self.database.answers})
        self.metrics = Metrics(mode="singleflight", version="1.2.3", ttl_s=30)
        self.service = TemplateService(self.repository, self.cache)
        self.app = make_app(self.service, self.health, self.metrics)
        self.client = client_of(self.app)

    def reset(self) -> None:
        """All as it was at first, but for what was counted."""
        self.repository.error = None
        self.repository.templates.clear()
        self.repository.requests.clear()
        self.repository.put(template(1, version=3), template(2))
        vars(self.cache).update(vars(FakeCache(self.repository)))
        self.redis.up = self.database.up = True
        self.health.draining = False
        self.client = client_of(self.app)


def make_app(
    service: TemplateService, health: Health, metrics: Metrics, *, max_age_s: int = 0, receive_timeout_s: float = 10.0
) -> Edge:
    made = create_app(
        service,
        health=health,
        metrics=metrics,
        version="1.2.3",
        max_body_bytes=MAX_BODY_BYTES,
        max_age_s=max_age_s,
        receive_timeout_s=receive_timeout_s,
    )
    assert isinstance(made, Edge)
    return made


def client_of(app: Edge) -> httpx.AsyncClient:
    """Every answer it gets must be as the API's description says."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app", event_hooks={"response": [conforms]}
    )


@pytest.fixture(scope="session")
def shared_api() -> Api:
    """Putting the application together takes longer than most tests of it."""
    return Api()


@pytest.fixture
async def api(shared_api: Api) -> AsyncIterator[Api]:
    """The application, as it was at first."""
    shared_api.reset()
    async with shared_api.client:
        yield shared_api


@pytest.fixture(scope="package")
def replica(
    stack: EmbeddedStack, fresh_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A real server."""
    log = tmp_path_factory.mktemp("replica") / "log"
    with serving(stack, fresh_database(), log, receive_timeout_s=PATIENCE_S) as started:
        yield started


@dataclass(frozen=True)
class Hasty:
    """A real server that gives clients little time, for tests of that time. `database` is its own."""

    replica: Replica
    database: str

    @property
    def port(self) -> int:
        return port_of(self.replica)


@pytest.fixture(scope="package")
def hasty(
    stack: EmbeddedStack, fresh_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hasty]:
    log = tmp_path_factory.mktemp("hasty") / "log"
    url = fresh_database()
    with serving(stack, url, log, receive_timeout_s=RECEIVE_TIMEOUT_S) as started:
        yield Hasty(started, url.rpartition("/")[2])


@contextmanager
def serving(stack: EmbeddedStack, database_url: str, log: Path, *, receive_timeout_s: float) -> Iterator[Replica]:
    """Fails in the end if it has answered anything with 500, has something in flight, or logged a traceback."""
    settings = {
        "APP_DATABASE_URL": database_url,
        "APP_REDIS_URL": stack.redis.url(),
        "APP_CACHE_KEY_PREFIX": log.parent.name,
        "APP_HTTP_RECEIVE_TIMEOUT_S": str(receive_timeout_s),
        "APP_BULKHEAD_TIMEOUT_S": str(PATIENCE_S),
        "APP_LOAD_DEADLINE_S": str(PATIENCE_S),
        "APP_DATABASE_ACQUIRE_TIMEOUT_S": str(PATIENCE_S),
        "APP_DRAIN_DELAY_S": "0",
    }
    with Replica(settings, log=log) as started:
        yield started
        metrics = httpx.get(f"{started.http_url}/metrics").text
        assert started.is_running
    assert not [line for line in metrics.splitlines() if 'status="500"' in line and not line.endswith(" 0.0")]
    assert "http_in_flight_requests 0.0" in metrics
    assert "Traceback" not in log.read_text()


@pytest.fixture
def port(replica: Replica) -> int:
    """Where the real server listens."""
    return port_of(replica)


def port_of(replica: Replica) -> int:
    port = urlsplit(replica.http_url).port
    assert port is not None
    return port
