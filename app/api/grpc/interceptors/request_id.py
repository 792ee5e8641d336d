"""Every call has an id, which its log lines and its caller get."""

from __future__ import annotations

import random
import re
from typing import Any

from app.api.grpc.call import Behaviour, Call, Method
from app.telemetry.logs import REQUEST_ID

KEY = "x-request-id"
VALID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestIds:
    """The caller's `x-request-id` where it sent one that is valid, else one that is made.

    It goes back in the initial metadata, at once. What has to be settled before that, such as compression, belongs into
    an interceptor further out.
    """

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:  # noqa: ARG002 - alike for all methods
        async def identified(request: Any, call: Call) -> bytes | None:
            call.request_id = _taken(call) or f"{random.getrandbits(64):016x}"
            REQUEST_ID.set(call.request_id)  # for the call's own task, which ends with it
            await call.context.send_initial_metadata(((KEY, call.request_id),))
            return await behaviour(request, call)

        return identified


def _taken(call: Call) -> str | None:
    for name, value in call.metadata:
        if name == KEY:
            return value if isinstance(value, str) and VALID.fullmatch(value) else None
    return None
