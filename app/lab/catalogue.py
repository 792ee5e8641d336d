"""The experiments there are."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from app.lab.approaches.experiment import APPROACHES
from app.lab.errors import UnknownExperimentError
from app.lab.experiment import Experiment
from app.lab.loadtest_go import LOADTEST_GO
from app.lab.scale.experiment import SCALE
from app.lab.xfetch.experiment import XFETCH

EXPERIMENTS: Sequence[Experiment] = (APPROACHES, LOADTEST_GO, XFETCH, SCALE)


def find(names: Sequence[str], among: Sequence[Experiment] = EXPERIMENTS) -> list[Experiment]:
    """Those of these names, each once, in the catalogue's order; all where none is named.

    Raises `UnknownExperimentError`.
    """
    known = [experiment.name for experiment in among]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise UnknownExperimentError(f"there is no experiment {name}; {guess}there are {', '.join(known)}")
    return [experiment for experiment in among if not names or experiment.name in names]
