"""Errors become statuses with details."""

from __future__ import annotations

import asyncio
import logging

import grpc

from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.errors import CallError
from app.api.grpc.statuses import DETAILS_KEY, rpc_status, status_of
from app.telemetry.calls import CallMetrics

DEADLINE_SLACK_S = 0.1
"""A caller that leaves so shortly before its deadline has missed it: its clock ran while the call was on its way."""

_log = logging.getLogger(__name__)


class Failures:
    """Where a method raises, the call ends with the error's status, and `Call.status` says how any call ended.

    An error of the tables is told to the client; any other is a bug, which is logged and told as INTERNAL with a fixed
    text. Cancellation passes: it means that the caller has gone or that its deadline has passed.
    """

    def __init__(self, metrics: CallMetrics | None = None) -> None:
        self._metrics = metrics

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:  # noqa: ARG002 - alike for all methods
        async def ended_by_status(call: Call) -> bytes | None:
            try:
                response = await behaviour(call)
            except asyncio.CancelledError:
                left_s = call.context.time_remaining()
                missed = left_s is not None and left_s <= DEADLINE_SLACK_S
                call.status = "DEADLINE_EXCEEDED" if missed else "CANCELLED"
                raise
            except grpc.aio.AbortError:
                call.status = _name(call.context.code())
                raise
            except grpc.aio.InternalError:
                # Nothing can be sent: the connection is gone, or the client has ended the call. Passed on as it is, it
                # would be logged by gRPC as a fault of the method.
                call.status = "CANCELLED"
                raise asyncio.CancelledError from None
            except Exception as error:
                if self._metrics is not None and isinstance(error, CallError):
                    self._metrics.refused(error.code)
                await _abort(call, error)
                raise  # not reached: to abort is to raise
            code = call.context.code()
            if code is not None:
                call.status = _name(code)
            return response

        return ended_by_status


async def _abort(call: Call, error: Exception) -> None:
    code = status_of(error)
    call.status = code.name
    if code is grpc.StatusCode.INTERNAL:
        _log.error("%s failed", call.method.name, exc_info=error)
    told = rpc_status(error)
    trailing = (*call.context.trailing_metadata(), (DETAILS_KEY, told.SerializeToString()))
    await call.context.abort(code, told.message, trailing)


def _name(code: grpc.StatusCode | int | None) -> str:
    known = code if isinstance(code, grpc.StatusCode) else _BY_NUMBER.get(code)
    return "UNKNOWN" if known is None else known.name


_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}
