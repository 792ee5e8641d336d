"""What a call does for its caller may take no longer than the caller waits."""

from __future__ import annotations

from collections.abc import Awaitable

from app.api.grpc.call import Behaviour, Call, Method
from app.concurrency.budget import begin


class Budgets:
    """The time that is left to the caller becomes the budget (`app.concurrency.budget`) of all that is called on."""

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:  # noqa: ARG002 - alike for all methods
        # No coroutine of its own, which every call would have to pass through: there is nothing to do afterwards.
        def budgeted(call: Call) -> Awaitable[bytes | None]:
            left_s = call.context.time_remaining()
            if left_s is not None:
                begin(left_s)
            return behaviour(call)

        return budgeted
