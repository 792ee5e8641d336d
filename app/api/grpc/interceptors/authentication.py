"""Who calls: bearer tokens (RFC 6750, section 2.1)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Mapping

from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.errors import UnauthenticatedError

KEY = "authorization"
SCHEME = "bearer"


class Authentication:
    """Takes calls only with `authorization: Bearer TOKEN`, where TOKEN is a known one; `Call.client` is its name then.

    Methods of the services in `open_services` are for everybody. Every token is compared with, and in constant time, so
    that the time which a refusal takes tells nothing of any.
    """

    def __init__(self, tokens: Mapping[str, str], *, open_services: Collection[str] = ()) -> None:
        """`tokens` are by the client's name."""
        self._digests = [(name, _digest(token)) for name, token in tokens.items()]
        self._open_services = frozenset(open_services)

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        if method.service in self._open_services:
            return behaviour

        async def authenticated(call: Call) -> bytes | None:
            call.client = self._name(_token(call))
            return await behaviour(call)

        return authenticated

    def _name(self, token: str) -> str:
        digest = _digest(token)
        found = None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        if found is None:
            raise UnauthenticatedError("the token is not known")
        return found


def _token(call: Call) -> str:
    sent = call.values(KEY)
    if not sent:
        raise UnauthenticatedError("this call needs the metadata `authorization: Bearer TOKEN`")
    if len(sent) > 1:
        raise UnauthenticatedError("`authorization` must be sent once")
    scheme, _, token = str(sent[0]).partition(" ")
    if scheme.lower() != SCHEME or not token.strip():
        raise UnauthenticatedError("`authorization` must read `Bearer TOKEN`")
    return token.strip()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
