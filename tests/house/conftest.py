"""What tests about the project itself keep, and when they let go of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.house.project import tree


@pytest.fixture(scope="package", autouse=True)
def trees() -> Iterator[None]:
    """A million nodes, which every later look for garbage would have to go through."""
    yield
    tree.cache_clear()
