"""The methods of the server, each with the interceptors around it.

grpc.aio's own interceptors are looked up and run anew for every call, before its method is found. These are wrapped
around each method once, so that a call only passes through them.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError, Message

from app.api.grpc.call import UNKNOWN, Behaviour, Call, Interceptor, Kind, Method
from app.api.grpc.errors import MalformedMessageError, UnknownMethodError

Decode = Callable[[Any], Any]

ENDED_S = 0.05
"""Within it gRPC tells of a call that is over already: its client has gone, or its message was refused for its size."""


class Chain(grpc.GenericRpcHandler):  # type: ignore[misc]  # it is untyped
    """All methods, to be given to a server as its one generic handler. The first interceptor is the outermost.

    The generated `add_…Servicer_to_server` functions take it for the server that they add methods to.
    """

    def __init__(self, interceptors: Sequence[Interceptor]) -> None:
        self._interceptors = interceptors
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}
        self._unknown = _handler(UNKNOWN, self._wrapped(UNKNOWN, _refuse))

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Not needed: the same methods come one by one, with their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Takes the methods of a service, by name."""
        for name, handler in handlers.items():
            method = Method(service, f"{service}/{name}", _kind(handler))
            self._handlers[method.path] = _handler(method, self._wrapped(method, _innermost(method, handler)))

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """The method that a call asks for; never `None`, so that unknown ones are counted and logged like all."""
        return self._handlers.get(handler_call_details.method, self._unknown)

    def _wrapped(self, method: Method, behaviour: Behaviour) -> Behaviour:
        for interceptor in reversed(self._interceptors):
            behaviour = interceptor.wrap(method, behaviour)
        return behaviour


class StreamContext:
    """The context of a call that streams: decodes what is read, encodes what is written, and counts both.

    An async iterator over the requests. A message that is bytes already is written as it is. All else is as in
    `grpc.aio.ServicerContext`.
    """

    def __init__(self, call: Call, decode: Decode) -> None:
        self._call = call
        self._context = call.context
        self._decode = decode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __aiter__(self) -> StreamContext:
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message

    async def read(self) -> Any:
        """The next request, or `grpc.aio.EOF`. Raises `MalformedMessageError`."""
        raw = await self._context.read()
        if raw is grpc.aio.EOF:
            return raw
        self._call.has_received()
        return self._decode(raw)

    async def write(self, message: Message | bytes) -> None:
        """Sends an answer; waits while the client doesn't read."""
        await self._context.write(_encoded(message))
        self._call.has_sent()


def _kind(handler: grpc.RpcMethodHandler) -> Kind:
    if handler.request_streaming:
        return Kind.BIDI_STREAMING if handler.response_streaming else Kind.CLIENT_STREAMING
    return Kind.SERVER_STREAMING if handler.response_streaming else Kind.UNARY


def _handler(method: Method, behaviour: Behaviour) -> grpc.RpcMethodHandler:
    """What grpc.aio calls. It passes bytes both ways: decoding is part of the behaviour, and so are its errors."""

    # It tells by the kind of the function how to call it, so this has to be a coroutine function.
    async def respond(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
        return await behaviour(Call(method, context))

    # All kinds read their requests themselves. Where gRPC is to read the one request and none comes, it never answers,
    # and a task stays as long as the client; besides, a call could be refused only once its request had come.
    streams = method.kind in (Kind.SERVER_STREAMING, Kind.BIDI_STREAMING)
    make = grpc.stream_stream_rpc_method_handler if streams else grpc.stream_unary_rpc_method_handler
    return cast("grpc.RpcMethodHandler", make(respond))


def _innermost(method: Method, handler: grpc.RpcMethodHandler) -> Behaviour:
    """The servicer's own method, between decoding and encoding."""
    answer = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if inspect.isasyncgenfunction(answer):
        answer = _written(answer)
    if not inspect.iscoroutinefunction(answer):
        return _refuse  # generated in place of one that the servicer doesn't have
    decode = _decoder(handler.request_deserializer)
    match method.kind:
        case Kind.UNARY:

            async def unary(call: Call) -> bytes:
                response = _encoded(await answer(await _only_request(call, decode), call.context))
                call.has_sent()
                return response

            return unary
        case Kind.SERVER_STREAMING:

            async def server_streaming(call: Call) -> None:
                await answer(await _only_request(call, decode), StreamContext(call, decode))

            return server_streaming
        case Kind.CLIENT_STREAMING:

            async def client_streaming(call: Call) -> bytes:
                context = StreamContext(call, decode)
                response = _encoded(await answer(context, context))
                call.has_sent()
                return response

            return client_streaming
        case Kind.BIDI_STREAMING:

            async def bidi_streaming(call: Call) -> None:
                context = StreamContext(call, decode)
                await answer(context, context)

            return bidi_streaming


async def _only_request(call: Call, decode: Decode) -> Any:
    """Raises `MalformedMessageError`, where none comes, too."""
    raw = await call.context.read()
    if raw is grpc.aio.EOF:
        await asyncio.sleep(ENDED_S)  # cancelled meanwhile where the call is over
    else:
        call.has_received()
    return decode(raw)


async def _refuse(_call: Call) -> bytes | None:
    raise UnknownMethodError


def _written(generate: Callable[[Any, StreamContext], Any]) -> Callable[[Any, StreamContext], Awaitable[None]]:
    """A method that yields its answers, as one that writes them."""

    async def write(request: Any, context: StreamContext) -> None:
        answers = generate(request, context)
        try:
            async for message in answers:
                await context.write(message)
        finally:
            await answers.aclose()

    return write


def _decoder(parse: Callable[[bytes], Any]) -> Decode:
    owner = getattr(parse, "__self__", None)
    name = owner.DESCRIPTOR.full_name if owner is not None else "message of this method"

    def decode(raw: Any) -> Any:
        if raw is grpc.aio.EOF:
            raise MalformedMessageError(name, "the call carries no whole message")
        try:
            return parse(raw)
        except DecodeError:
            raise MalformedMessageError(name) from None

    return decode


def _encoded(message: Message | bytes) -> bytes:
    return message if type(message) is bytes else cast("Message", message).SerializeToString()
