"""What a person can choose of a scenario."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from app.scenarios.errors import OptionsError

MOST_REPLICAS, MOST_RATE, MOST_KEYS, MOST_DURATION_S = 16, 5_000.0, 500, 3_600.0
LEAST_DURATION_S = 2.0
REQUEST_TIMEOUT_S = 10.0
"""After which a request has failed."""


@dataclass(frozen=True, slots=True)
class Options:
    """`duration_s` is how long the break lasts, `rate` the requests a second to all replicas, on `keys` warm keys.

    `cold_keys` is how many keys are asked for at once that no cache holds, where a scenario does that. `settings` are
    settings of the app (environment variables) that go before the scenario's own. With `compose` it runs on containers,
    else on embedded servers. Raises `OptionsError`.
    """

    duration_s: float = 30.0
    replicas: int = 3
    rate: float = 250.0
    keys: int = 50
    cold_keys: int = 2_000
    settings: Mapping[str, str] = field(default_factory=dict)
    compose: bool = False

    def __post_init__(self) -> None:
        _check("--duration", self.duration_s, LEAST_DURATION_S, MOST_DURATION_S)
        _check("--replicas", self.replicas, 1, MOST_REPLICAS)
        _check("--rate", self.rate, 1, MOST_RATE)
        _check("--keys", self.keys, 1, MOST_KEYS)
        _check("--cold-keys", self.cold_keys, 1, 20_000)

    def with_flags(
        self,
        *,
        duration_s: float | None,
        replicas: int | None,
        rate: float | None,
        keys: int | None,
        cold_keys: int | None,
        settings: Mapping[str, str],
        compose: bool = False,
    ) -> Options:
        """These, but for what is given. Raises `OptionsError`."""
        return replace(
            self,
            duration_s=self.duration_s if duration_s is None else duration_s,
            replicas=self.replicas if replicas is None else replicas,
            rate=self.rate if rate is None else rate,
            keys=self.keys if keys is None else keys,
            cold_keys=self.cold_keys if cold_keys is None else cold_keys,
            settings=settings,
            compose=compose,
        )


def _check(flag: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise OptionsError(f"{flag} must be from {least:g} to {most:g}, not {value:g}")
