"""A cluster of hosts for each test that asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.hosts.cluster import Cluster


@pytest.fixture
async def cluster(tmp_path) -> AsyncIterator[Cluster]:
    opened = Cluster(tmp_path)
    try:
        await opened.open()
        yield opened
    finally:
        await opened.close()
