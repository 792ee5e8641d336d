"""A server with one method of each kind, behind the interceptors, and a channel to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
from google.rpc.status_pb2 import Status

from app.api.grpc.call import Interceptor
from app.api.grpc.chain import Chain
from app.api.grpc.interceptors.stack import CallPolicy, interceptors
from app.api.grpc.statuses import DETAILS_KEY
from app.proto.template.v1.template_pb2 import DeleteTemplateResponse as Answer
from app.proto.template.v1.template_pb2 import GetTemplateDetailsRequest as Question
from app.telemetry.metrics import Metrics
from tests.faults.polling import until

SERVICE = "test.v1.Kinds"
KINDS = ("Unary", "ServerStream", "ClientStream", "Bidi")
METHODS = {kind: f"{SERVICE}/{kind}" for kind in KINDS}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass
class Servicer:
    """Answers what it was asked with the same number; streams answer each question twice.

    `error` is raised before the first answer, `late_error` after it; `hold` is waited for before either. `forgets` is
    the bug of not answering at all.
    """

    error: Exception | None = None
    late_error: Exception | None = None
    hold: asyncio.Event | None = None
    forgets: bool = False
    does: Callable[[Context], Any] | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def _begin(self, context: Context) -> None:
        self.begun.set()
        if self.does is not None:
            await self.does(context)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error

    async def unary(self, question: Question, context: Context) -> Answer | None:
        await self._begin(context)
        return None if self.forgets else Answer(version=question.id)

    async def server_stream(self, question: Question, context: Context) -> AsyncIterator[Answer]:
        try:
            await self._begin(context)
            yield Answer(version=question.id)
            if self.late_error is not None:
                raise self.late_error
            yield Answer(version=question.id)
        finally:
            self.ended.set()

    async def client_stream(self, questions: AsyncIterator[Question], context: Context) -> Answer:
        await self._begin(context)
        return Answer(version=sum([question.id async for question in questions]))

    async def bidi(self, questions: AsyncIterator[Question], context: Context) -> None:
        await self._begin(context)
        async for question in questions:
            await context.write(Answer(version=question.id))
            if self.late_error is not None:
                raise self.late_error
            await context.write(Answer(version=question.id).SerializeToString())

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        coders = Question.FromString, Answer.SerializeToString
        return {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary, *coders),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream, *coders),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream, *coders),
            "Bidi": grpc.stream_stream_rpc_method_handler(self.bidi, *coders),
        }


@dataclass
class Rig:
    servicer: Servicer
    metrics: Metrics
    port: int
    channel: grpc.aio.Channel

    def call(self, kind: str, *questions: Question | bytes, **options: Any) -> Any:
        """Begins a call of the method of this kind.

        Without questions a stream stays open and asks nothing, which is how to be refused: where a call has ended
        before its client writes, grpc.aio's says that it failed by itself.
        """
        path, raw = f"/{SERVICE}/{kind}", [_bytes(question) for question in questions]
        options.setdefault("timeout", 10)
        match kind:
            case "Unary":
                return self.channel.unary_unary(path)(raw[0] if raw else b"", **options)
            case "ServerStream":
                return self.channel.unary_stream(path)(raw[0] if raw else b"", **options)
            case "ClientStream":
                return self.channel.stream_unary(path)(each_of(raw), **options)
        return self.channel.stream_stream(path)(each_of(raw), **options)

    async def answers(self, call: Any) -> list[int]:
        """All of a call's. Raises `grpc.aio.AioRpcError`."""
        raw = [each async for each in call] if hasattr(call, "__aiter__") else [await call]
        return [Answer.FromString(each).version for each in raw]

    async def ask(self, kind: str, *questions: Question | bytes, **options: Any) -> list[int]:
        """Calls, and returns all answers. Raises `grpc.aio.AioRpcError`. The server is done with the call by then."""
        try:
            return await self.answers(self.call(kind, *questions, **options))
        finally:
            await self.idle()

    async def ask_of(self, path: str) -> None:
        """Calls any method. Raises `grpc.aio.AioRpcError`. The server is done with the call by then."""
        try:
            await self.channel.unary_unary(path)(b"", timeout=10)
        finally:
            await self.idle()

    async def idle(self) -> None:
        """Returns once the server is done with all calls: a client may know of a call's end before it is counted."""
        await until(lambda: self.value("grpc_in_flight_requests") == 0, "no call is in flight")

    async def status(self, kind: str, *questions: Question | bytes, **options: Any) -> grpc.StatusCode:
        """Calls, and returns how that ended."""
        call = self.call(kind, *questions, **options)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.answers(call)  # a stream whose answers nobody reads does not end
        await self.idle()
        code: grpc.StatusCode = await call.code()
        return code

    def value(self, name: str, **labels: str) -> float:
        """A metric's value now; 0 where it has no such series."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def serving(policy: CallPolicy | None = None, *others: Interceptor) -> AsyncIterator[Rig]:
    """A rig whose server has the interceptors that `policy` asks for, and inside of them `others`."""
    servicer, metrics = Servicer(), Metrics(mode="none", version="0", ttl_s=1)
    chain = Chain([*interceptors(metrics.calls, policy), *others])
    chain.add_registered_method_handlers(SERVICE, servicer.handlers())
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((chain,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Rig(servicer, metrics, port, channel)
    finally:
        await server.stop(None)


def told(error: grpc.aio.AioRpcError) -> Status:
    """The google.rpc.Status that a failed call came with."""
    [raw] = [value for key, value in error.trailing_metadata() if key == DETAILS_KEY]
    return Status.FromString(raw)


def _bytes(question: Question | bytes) -> bytes:
    return question if isinstance(question, bytes) else question.SerializeToString()


async def each_of(raw: Sequence[bytes]) -> AsyncIterator[bytes]:
    """As a client streams them; where there are none it asks nothing and stays."""
    for each in raw:
        yield each
    if not raw:
        await asyncio.Event().wait()
