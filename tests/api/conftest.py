"""One served brokerd per test that asks for it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.api.judged import Judged, judging
from tests.api.served import Served, serve


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as running:
        yield running


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judged]:
    with judging(monkeypatch) as counting:
        yield counting
