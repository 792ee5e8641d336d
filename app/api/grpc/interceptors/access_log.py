"""One log line a call."""

from __future__ import annotations

import logging
import time
from enum import StrEnum

from app.api.grpc.call import Behaviour, Call, Method

_log = logging.getLogger(__name__)


class AccessLog(StrEnum):
    """Which calls are logged; its values are those of `APP_GRPC_ACCESS_LOG`."""

    OFF = "off"
    FAILED = "failed"
    ALL = "all"

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:
        """Writes, at level info, `name=value` pairs that hold nothing which a client could have made up."""
        if self is AccessLog.OFF:
            return behaviour

        async def logged(call: Call) -> bytes | None:
            begun = time.perf_counter()
            try:
                return await behaviour(call)
            finally:
                if self is AccessLog.ALL or call.status != "OK":
                    _log.info(
                        "method=%s kind=%s peer=%s client=%s status=%s duration_ms=%.3f received=%d sent=%d",
                        method.name,
                        method.kind.value,
                        call.context.peer(),
                        call.client or "-",
                        call.status,
                        (time.perf_counter() - begun) * 1e3,
                        call.received,
                        call.sent,
                    )

        return logged
