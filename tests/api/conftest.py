"""One served brokerd per test that asks for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api.served import Served, serve


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as running:
        yield running
