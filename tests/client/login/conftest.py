"""One provider that can misbehave, and one person, for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.login.fake_provider import FakeProvider, World


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    with FakeProvider() as running:
        yield running


@pytest.fixture
def world(provider: FakeProvider) -> World:
    return World(provider)
