"""A fake broker, and a client of it with SVID files."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

import broker.client
from broker.client import AsyncClient, calls
from tests.client.fake_broker import FakeBroker, SvidFiles, svid_files


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    fake = FakeBroker().start()
    yield fake
    fake.stop()


@pytest.fixture
def files(fake: FakeBroker, tmp_path: Path) -> SvidFiles:
    return svid_files(tmp_path / "svid", fake.agent(), fake.ca)


@pytest_asyncio.fixture
async def client(fake: FakeBroker, files: SvidFiles) -> AsyncIterator[AsyncClient]:
    connected = broker.client.connect(
        fake.address, "brokerd", certificate=files.certificate, key=files.key, bundle=files.bundle
    )
    async with connected:
        yield connected


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the waits between tries, for tests whose every try must fail."""
    monkeypatch.setattr(calls, "RETRY_WAITS", tuple(wait / 10 for wait in calls.RETRY_WAITS))
