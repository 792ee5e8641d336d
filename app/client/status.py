"""The status that a call really ended with."""

from __future__ import annotations

from typing import Any, TypeVar

C = TypeVar("C")


def told_whole(call: C) -> C:
    """The call, of a kind whose client streams, which ends with the service's status also where it ends in mid-write.

    grpc.aio's own says INTERNAL, "Internal error from Core", where a message can't be sent because the service has just
    ended the call: it doesn't wait for the status, which is on its way (grpc/aio/_call.py, `_StreamRequestMixin`). A
    call refused for its token, or an import for what it holds, was a fault of the service then, more often than not.
    """
    call._cython_call = _Patient(call._cython_call)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return call


class _Patient:
    """A call of gRPC's core that takes no status but what comes."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def set_internal_error(self, _text: str) -> None:
        """What grpc.aio does next is to ask for the status, which waits for it."""
