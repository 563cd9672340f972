"""Every point of what the broker does by itself: crash, error and hang at each. F2, F4, F30.

As in ``test_failpoints.py``: a clean run says which points there are, ``reviewed.toml`` which were looked at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.failpoints.errand import IMPATIENT, Errand
from tests.failpoints.hooks import Webhooks
from tests.failpoints.points import Armed, Fault
from tests.failpoints.reconciliation import Reconciliation
from tests.failpoints.retention import Retention
from tests.failpoints.test_failpoints import reviewed
from tests.failpoints.witnessing import Witnesses
from tests.patience import PATIENCE

ERRANDS: dict[str, type[Errand]] = {
    "reconciliation": Reconciliation,
    "retention": Retention,
    "webhooks": Webhooks,
    "witnesses": Witnesses,
}


@pytest.fixture(autouse=True)
def _in_silence() -> Iterator[None]:
    """What is logged about a thousand faults is read by nobody."""
    with capture_logs():
        yield


async def told(directory: Path, kind: str, armed: Armed | None) -> Errand:
    """A story that has come to its point, if the machine let it."""
    for number, impatient in enumerate(IMPATIENT):
        again = directory / str(number)
        again.mkdir(mode=0o700, parents=True)
        errand = ERRANDS[kind](again, armed, impatient)
        async with asyncio.timeout(5 * PATIENCE):
            await errand.tell()
        if armed is None or armed.fault is not Fault.HANG or errand.points.fired:
            break
    return errand


@pytest.mark.parametrize("kind", ERRANDS)
async def test_which_points_there_are(tmp_path: Path, kind: str) -> None:
    """A story without a fault passes exactly the points that were looked at."""
    errand = await told(tmp_path / "story", kind, None)
    assert sorted(errand.points.passed) == sorted(reviewed(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ERRANDS)
async def test_every_fault_at_every_point(tmp_path: Path, kind: str) -> None:
    """Whatever fails wherever: it comes to its end, once, and is in the trail."""
    only, broken = os.environ.get("FAILPOINT", ""), []
    for point in reviewed(kind):
        for fault in Fault:
            armed = Armed(point, fault)
            if only not in str(armed):
                continue
            try:
                errand = await told(tmp_path / f"{len(list(tmp_path.iterdir()))}", kind, armed)
                if not errand.points.fired:
                    broken.append(f"{armed}: it was never passed")
            except (AssertionError, TimeoutError) as failed:
                broken.append(f"{armed}: {(str(failed) or repr(failed)).splitlines()[0]}")
            print(armed)
    assert broken == []
