from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.watching.source import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with Rig() as opened:
        yield opened
