"""Clients of Redis, made from a URL: of one server or of a cluster."""

from __future__ import annotations

import re

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.cache.cluster import ClusterClient
from app.cache.slots import Address
from app.cache.sockets import NamedConnection, NamedTlsConnection
from app.concurrency.resolver import Resolver

CLUSTER_SHARE = 0.9
"""The share of an operation's time that one node of a cluster gets, so that its silence is known for that node's."""
DEFAULT_PORT = 6379

_CLUSTER_URL = re.compile(
    r"(?P<scheme>rediss?)\+cluster://(?:(?P<login>[^@]*)@)?(?P<nodes>[^/?]+)/?(?:\?(?P<query>.*))?"
)
_NODE = re.compile(r"(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>\d+))?")


def connect(
    url: str,
    *,
    connections: int,
    timeout_s: float,
    failures: int = 5,
    open_s: float = 1.0,
    client: type[Redis] = Redis,
) -> Redis | ClusterClient:
    """The client for `redis://…`, or for `redis+cluster://[user:password@]host:port,host:port`; `rediss` for TLS.

    It allows so many operations at a time, and one subscription besides. `timeout_s` bounds each operation on a
    cluster; on one server the caller does. A cluster's node is given up for `open_s` seconds after `failures` in a row.
    Nothing is connected before it is needed. `client` is what each server, or node, is asked by. Raises `ValueError`
    where the URL is none.
    """
    if "+cluster://" not in url.split("?")[0]:
        return _server(url, connections, client)
    scheme, login, seeds, query = _parts(url)

    def node(address: Address) -> Redis:
        host, port = address
        where = f"[{host}]" if ":" in host else host
        return _server(f"{scheme}://{login}{where}:{port}{query}", connections, client)

    return ClusterClient(seeds, node, timeout_s=CLUSTER_SHARE * timeout_s, failures=failures, open_s=open_s)


def _server(url: str, connections: int, client: type[Redis]) -> Redis:
    # No timeouts of the client's own: its callers bound each operation whole, waiting for a connection and opening one
    # included. Besides, under a socket_timeout the client sends by way of asyncio.wait_for, which on Python 3.11 may
    # swallow a cancellation, and then a flight that all have left goes on to load.
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections + 1,
        timeout=None,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,  # finding out its version reads files for each connection, on the event loop
        resolver=Resolver(),
    )
    pool.connection_class = NamedTlsConnection if url.startswith("rediss:") else NamedConnection
    return client.from_pool(pool)


def _parts(url: str) -> tuple[str, str, list[Address], str]:
    """Scheme, login with its @, the nodes, and the query with its question mark."""
    match = _CLUSTER_URL.fullmatch(url)
    nodes = [] if match is None else [_NODE.fullmatch(node) for node in match["nodes"].split(",")]
    seeds = [(node["host"].strip("[]"), int(node["port"] or DEFAULT_PORT)) for node in nodes if node is not None]
    if match is None or len(seeds) < len(nodes):
        raise ValueError("a cluster's URL reads redis+cluster://host:port,host:port")
    login = "" if match["login"] is None else f"{match['login']}@"
    return match["scheme"], login, seeds, "" if match["query"] is None else f"?{match['query']}"
