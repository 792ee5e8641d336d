from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.api.grpc.interceptors.rig import Rig, serving


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving() as running:
        yield running
