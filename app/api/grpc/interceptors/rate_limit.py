"""How often a client may call."""

from __future__ import annotations

from collections.abc import Collection

from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.errors import RateLimitedError
from app.concurrency.token_bucket import TokenBuckets


class RateLimit:
    """Refuses calls of a client that has used up its bucket. A stream counts once, when it begins.

    A client is the name that its token stands for, or, where none is asked for, its address without the port. Methods
    of the services in `exempt_services` are never refused, nor counted.
    """

    def __init__(self, buckets: TokenBuckets, *, exempt_services: Collection[str] = ()) -> None:
        self._buckets = buckets
        self._exempt_services = frozenset(exempt_services)

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        if method.service in self._exempt_services:
            return behaviour

        async def limited(call: Call) -> bytes | None:
            key = f"name {call.client}" if call.client is not None else f"address {_address(call.context.peer())}"
            wait_s = self._buckets.take(key)
            if wait_s:
                raise RateLimitedError(wait_s)
            return await behaviour(call)

        return limited


def _address(peer: str) -> str:
    """Of grpc's `ipv4:1.2.3.4:567` and `ipv6:[::1]:567` all but the port; clients on a unix socket are one."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
