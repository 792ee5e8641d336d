"""What can go wrong in a scenario, apart from broken promises, which are its outcome."""

from __future__ import annotations


class ScenarioError(Exception):
    """The scenario cannot run, or not be trusted; the message is one line and says what to do."""


class OptionsError(ScenarioError):
    """What was asked for makes no sense."""
