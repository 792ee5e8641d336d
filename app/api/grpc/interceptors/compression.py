"""Compressed answers, where that is worth it."""

from __future__ import annotations

from typing import Any

from app.api.grpc.call import Behaviour, Call, Kind, Method


class Compression:
    """On a server that compresses whatever its clients accept: leaves messages below a size as they are."""

    def __init__(self, min_bytes: int) -> None:
        self._min_bytes = min_bytes

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        min_bytes = self._min_bytes

        async def one_answer(call: Call) -> bytes | None:
            response = await behaviour(call)
            if response is not None and len(response) < min_bytes:
                call.context.disable_next_message_compression()
            return response

        async def many_answers(call: Call) -> bytes | None:
            call.context = _Writing(call.context, min_bytes)
            return await behaviour(call)

        return many_answers if method.kind in (Kind.SERVER_STREAMING, Kind.BIDI_STREAMING) else one_answer


class _Writing:
    """A call's context. All but `write` is its own."""

    def __init__(self, context: Any, min_bytes: int) -> None:
        self._context = context
        self._min_bytes = min_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: bytes) -> None:
        if len(message) < self._min_bytes:
            self._context.disable_next_message_compression()
        await self._context.write(message)
