"""What gRPC does by itself, told as a service config (https://github.com/grpc/grpc/blob/master/doc/service_config.md).

Calls go to all addresses of a target in turn. One that fails is tried again where it was not carried out, and where it
may have been, if once more is as good as once: reads are, and so are writes that carry a request id, which those of
`TemplateClient` always do. Watch and Sync are not: whoever reads the stream must know that it began anew.
"""

from __future__ import annotations

import json

from app.proto.template.v1 import template_pb2

SERVICE = template_pb2.DESCRIPTOR.services_by_name["TemplateService"].full_name
RETRIED = ("GetTemplateDetails", "CreateTemplate", "UpdateTemplate", "DeleteTemplate", "ImportTemplates")
"""An import only as long as the service has not taken it up, and all of it so far fits into gRPC's buffer, 256 KiB."""

ATTEMPTS = 4
"""Most tries of a call, the first included."""
FIRST_PAUSE_S, LONGEST_PAUSE_S, PAUSE_FACTOR = 0.05, 1.0, 2.0
"""Pauses between tries, each within a fifth of that at random."""
STATUSES = ("UNAVAILABLE", "CANCELLED")
"""With CANCELLED a server of gRPC's ends what reaches it in the instant in which it stops. A call that its own caller
cancels is not tried again."""
MOST_TOKENS, TOKEN_A_SUCCESS = 100, 0.1
"""Each failed try takes a token, a success gives a tenth of one back, and with half of the tokens gone nothing is tried
again: a service in trouble is not asked four times as often."""


def service_config(*, retries: bool = True) -> str:
    """It, as JSON."""
    balancing: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if not retries:
        return json.dumps(balancing)
    return json.dumps(
        {
            **balancing,
            "methodConfig": [
                {
                    "name": [{"service": SERVICE, "method": method} for method in RETRIED],
                    "retryPolicy": {
                        "maxAttempts": ATTEMPTS,
                        "initialBackoff": f"{FIRST_PAUSE_S}s",
                        "maxBackoff": f"{LONGEST_PAUSE_S}s",
                        "backoffMultiplier": PAUSE_FACTOR,
                        "retryableStatusCodes": STATUSES,
                    },
                }
            ],
            "retryThrottling": {"maxTokens": MOST_TOKENS, "tokenRatio": TOKEN_A_SUCCESS},
        }
    )
