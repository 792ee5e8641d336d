"""What can go wrong in the lab, apart from verdicts, which are its outcome."""

from __future__ import annotations


class LabError(Exception):
    """An experiment cannot run; the message is one line and says what to do."""


class UnknownExperimentError(LabError):
    """There is no experiment of that name."""
