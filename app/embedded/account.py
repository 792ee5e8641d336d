"""Whom the servers run as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from app.embedded.errors import EmbeddedError

UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """A user and a group, by number, that a process changes to."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The account that servers change to, or None to run as oneself: only root changes, as PostgreSQL refuses root.

    Raises `EmbeddedError` where root has no `nobody` to change to.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED} to run it as"
        ) from None
    return Account(entry.pw_uid, entry.pw_gid)
