"""What the database announces of a template, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Change:
    """A template was inserted, updated or deleted, and the id has this version now, or already a higher one.

    `made_at` is when its statement ended, in seconds since the epoch by the database's clock; `None` where that was not
    announced. Changes of the same id and version are equal whatever it is.
    """

    id: int
    version: int
    made_at: float | None = field(default=None, compare=False)


class ChangeListener(Protocol):
    """Is told by the feed of changes: on the event loop, synchronously. It is to be quick and must not raise.

    A change may be told more than once, and an id's older version after a newer one.
    """

    def changed(self, changes: Sequence[Change]) -> None: ...

    def feed_lost(self) -> None:
        """From now on changes may be missed. Called once per loss."""
        ...

    def feed_caught_up(self) -> None:
        """All changes up to now have been told, those of the gap too, and further ones will be."""
        ...

    def everything_changed(self) -> None:
        """Any template may have changed. The database may even be another one, whose versions begin anew: from now on
        an id's version may be lower than one told before."""
        ...

    def flushed(self) -> None:
        """Somebody who measures wants everybody to begin with nothing in hand. No template has changed."""
        ...


def parse_announcement(payload: str) -> list[Change] | None:
    """The changes that a notification's payload lists, `None` where it lists none.

    It is `id:version,id:version,…`, with `MILLISECONDS@` before it: when they were made, since the epoch.
    """
    moment, dated, listed = payload.rpartition("@")
    try:
        made_at = int(moment) / 1000 if dated else None
        pairs = [item.split(":") for item in listed.split(",")]
        return [Change(int(template_id), int(version), made_at) for template_id, version in pairs]
    except ValueError:
        return None
