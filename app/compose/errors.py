"""What the Compose stack raises."""

from __future__ import annotations


class ComposeError(Exception):
    """Docker can't be used, or not as asked; the message is one clear line and says what to do, where that is known."""
