"""The time source that everything timed takes as a parameter, so that tests need not sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds. Monotonic clocks time intervals; wall clocks date what other processes will read."""

monotonic: Clock = time.monotonic
wall: Clock = time.time
