"""What all stories with faults have around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def _in_silence() -> Iterator[None]:
    """What is logged about a thousand faults is read by nobody."""
    with capture_logs():
        yield
