"""What a call can fail by before the service is asked. As the domain's, each has its row in `statuses.STATUSES`."""

from __future__ import annotations

from typing import ClassVar


class CallError(Exception):
    """Base of the errors below. `code` is stable and machine-readable; `str(error)` is fit for clients."""

    code: ClassVar[str] = "error"


class MalformedMessageError(CallError):
    """A request message is not what its method takes: its bytes cannot be decoded, or there is none."""

    code = "malformed_message"

    def __init__(self, message: str, why: str = "its bytes cannot be decoded as one") -> None:
        super().__init__(f"the request is no {message}: {why}")


class InvalidMetadataError(CallError):
    """The call's metadata has too many entries, or characters in a value that none may have."""

    code = "invalid_metadata"


class UnauthenticatedError(CallError):
    """The call carries no token, or one that is not known."""

    code = "unauthenticated"


class RateLimitedError(CallError):
    """This client calls too often; its next call is taken in `retry_after_s` seconds."""

    code = "rate_limited"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"too many calls from this client; try again in {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


class UnknownMethodError(CallError):
    """The server has no such method."""

    code = "unknown_method"

    def __init__(self) -> None:
        super().__init__("this server has no such method")
