"""Every call has an id, which its log lines and its caller get."""

from __future__ import annotations

from app.api.grpc.call import Behaviour, Call, Kind, Method
from app.telemetry.request_id import KEY, begin


class RequestIds:
    """The caller's `x-request-id` where it sent one that is valid, else one that is made.

    It goes back in the trailing metadata, and to who sent one and to who reads a stream in the initial metadata too.
    Not to all, because that is sent by itself, ahead of the answer, and adds a quarter to what a unary call costs.
    What has to be settled before initial metadata, such as compression, belongs into an interceptor further out.
    """

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        streams = method.kind is not Kind.UNARY

        async def identified(call: Call) -> bytes | None:
            sent = call.values(KEY)
            call.request_id = begin(sent)  # for the call's own task, which ends with it
            returned = ((KEY, call.request_id),)
            call.context.set_trailing_metadata(returned)
            if sent or streams:
                await call.context.send_initial_metadata(returned)
            return await behaviour(call)

        return identified
