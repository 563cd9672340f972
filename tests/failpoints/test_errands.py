"""Every point of what the broker does by itself: crash, error and hang at each. F2, F4, F30.

As in ``test_failpoints.py``: a clean run says which points there are, ``reviewed.toml`` which were looked at.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.failpoints.errand import IMPATIENT, Errand
from tests.failpoints.hooks import Webhooks
from tests.failpoints.points import Armed
from tests.failpoints.reconciliation import Reconciliation
from tests.failpoints.retention import Retention
from tests.failpoints.trying import broken_at, brought_to_its_point, reviewed
from tests.failpoints.witnessing import Witnesses

ERRANDS: dict[str, type[Errand]] = {
    "reconciliation": Reconciliation,
    "retention": Retention,
    "webhooks": Webhooks,
    "witnesses": Witnesses,
}


async def told(directory: Path, kind: str, armed: Armed | None) -> Errand:
    """A story that has come to its point, if the machine let it."""
    begin = lambda again, impatient: nullcontext(ERRANDS[kind](again, armed, impatient))  # noqa: E731
    return await brought_to_its_point(directory, armed, IMPATIENT, begin)


@pytest.mark.parametrize("kind", ERRANDS)
async def test_which_points_there_are(tmp_path: Path, kind: str) -> None:
    """A story without a fault passes exactly the points that were looked at."""
    errand = await told(tmp_path / "story", kind, None)
    assert sorted(errand.points.passed) == sorted(reviewed(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ERRANDS)
async def test_every_fault_at_every_point(tmp_path: Path, kind: str) -> None:
    """Whatever fails wherever: it comes to its end, once, and is in the trail."""
    assert await broken_at(kind, tmp_path, lambda where, armed: told(where, kind, armed)) == []
