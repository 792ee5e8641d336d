"""What the embedded servers raise."""

from __future__ import annotations


class EmbeddedError(Exception):
    """An embedded server cannot be started, reached or used as asked; the message is one clear sentence,
    with the last lines of the server's log below it where they say more."""
