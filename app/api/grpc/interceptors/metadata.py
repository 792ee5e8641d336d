"""A call's metadata, before anything is read out of it."""

from __future__ import annotations

from app.api.grpc.call import Behaviour, Call, Method
from app.api.grpc.errors import InvalidMetadataError

MAX_ENTRIES = 64
MAX_NAME_CHARS = 128


class MetadataRules:
    """Refuses metadata of too many entries, with too long a name, or with a value that HTTP/2 does not carry as text.

    How much it may be in all is the server's own limit. grpc core lets values of any bytes through; a text value is
    printable ASCII (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, ASCII-Value), so that none can
    forge a log line or a header. Values whose name ends in `-bin` are bytes, of which anything may be made.
    """

    def wrap(self, method: Method, behaviour: Behaviour) -> Behaviour:  # noqa: ARG002 - alike for all methods
        async def checked(call: Call) -> bytes | None:
            metadata = call.metadata
            if len(metadata) > MAX_ENTRIES:
                raise InvalidMetadataError(f"metadata must have at most {MAX_ENTRIES} entries, has {len(metadata)}")
            for name, value in metadata:
                if len(name) > MAX_NAME_CHARS:
                    raise InvalidMetadataError(f"a name in metadata must have at most {MAX_NAME_CHARS} characters")
                if isinstance(value, str) and not (value.isascii() and value.isprintable()):
                    raise InvalidMetadataError(f"metadata {name}: a value must be printable ASCII")
            return await behaviour(call)

        return checked
