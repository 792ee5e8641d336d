"""What can be asked for on the live page, and what each takes."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from app.domain.template import MAX_ID
from app.live.recorder import LEAST_CALLERS
from app.settings import Mode

MAX_CALLERS: Final = 1_000
MAX_SLOW_MS: Final = 60_000

Id = Annotated[int, Field(ge=1, le=MAX_ID)]


class Arguments(BaseModel):
    """Of an action: these fields and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Nothing(Arguments):
    """An action that takes none."""


class Stampede(Arguments):
    """So many callers ask for one template at once; without an id, for one that is made cold first."""

    callers: int = Field(200, ge=LEAST_CALLERS, le=MAX_CALLERS)
    id: Id | None = None


class OneTemplate(Arguments):
    """One template."""

    id: Id


class Slowness(Arguments):
    """By how much each load is delayed."""

    ms: int = Field(500, ge=1, le=MAX_SLOW_MS)


class ModeChange(Arguments):
    """The protection that the application is to have."""

    mode: Mode


ACTIONS: Final[dict[str, type[Arguments]]] = {
    "stampede": Stampede,
    "expire": OneTemplate,
    "change": OneTemplate,
    "redis_away": Nothing,
    "redis_back": Nothing,
    "postgres_slow": Slowness,
    "postgres_normal": Nothing,
    "mode": ModeChange,
}
"""By name."""

HERE: Final = ("expire", "change", "postgres_slow", "postgres_normal")
"""Those that each application does by itself, for the controller."""


class ActionError(Exception):
    """It was not done. `status` is HTTP's, `code` for programs; `str` says why, and what would be right."""

    def __init__(self, status: int, code: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.code = code
