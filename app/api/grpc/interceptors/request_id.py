"""Every call has an id, which its log lines and its caller get."""

from __future__ import annotations

import random
import re
from typing import Any

from app.api.grpc.call import Behaviour, Call, Kind, Method
from app.telemetry.logs import REQUEST_ID

KEY = "x-request-id"
VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """The caller's `x-request-id` where it sent one that is valid, else one that is made.

    It goes back in the trailing metadata, and to who sent one and to who reads a stream in the initial metadata too.
    Not to all, because that is sent by itself, ahead of the answer, and adds a quarter to what a unary call costs.
    What has to be settled before initial metadata, such as compression, belongs into an interceptor further out.
    """

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        streams = method.kind is not Kind.UNARY

        async def identified(request: Any, call: Call) -> bytes | None:
            sent = call.values(KEY)
            request_id = _valid(sent) or f"{random.getrandbits(64):016x}"
            call.request_id = request_id
            REQUEST_ID.set(request_id)  # for the call's own task, which ends with it
            returned = ((KEY, request_id),)
            call.context.set_trailing_metadata(returned)
            if sent or streams:
                await call.context.send_initial_metadata(returned)
            return await behaviour(request, call)

        return identified


def _valid(sent: list[str | bytes]) -> str | None:
    if len(sent) == 1 and isinstance(sent[0], str) and VALID.fullmatch(sent[0]):
        return sent[0]
    return None
