"""Every point of what the broker does by itself: crash, error and hang at each. F2, F4, F30.

As in ``test_failpoints.py``: a clean run says which points there are, ``reviewed.toml`` which were looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import pytest

from tests.failpoints.canarying import CanaryErrand
from tests.failpoints.errand import IMPATIENT, Errand
from tests.failpoints.hooks import Webhooks
from tests.failpoints.points import Armed
from tests.failpoints.reconciliation import Reconciliation
from tests.failpoints.retention import Retention
from tests.failpoints.streaming import Streams
from tests.failpoints.trying import broken_at, brought_to_its_point, reviewed
from tests.failpoints.witness_kinds import S3Server
from tests.failpoints.witnessing import Witnesses

Begin = Callable[[Path, Armed | None, float], Errand]
# Points that a story passes or not, as its tasks happen to come by: a canary looks one time more or less; a lane may
# find nothing more to do before it asks for orphans.
_BY_CHANCE = {
    "canaries": re.compile(r"call use #(2[1-9]|[3-9][0-9]) "),
    "streams": re.compile(r"commit claim_orphans "),
}
_NONE = re.compile(r"(?!)")
KINDS = (
    "canaries",
    "reconciliation",
    "retention",
    "streams",
    "webhooks",
    "witnesses",
    "witnesses-http",
    "witnesses-s3",
    "witnesses-syslog",
)


@pytest.fixture
def begin(kind: str, request: pytest.FixtureRequest) -> Begin:
    """What begins a story of this kind."""
    match kind:
        case "canaries":
            return CanaryErrand
        case "reconciliation":
            return Reconciliation
        case "retention":
            return Retention
        case "streams":
            return Streams
        case "webhooks":
            return Webhooks
        case "witnesses-s3":
            server = S3Server(request.getfixturevalue("aws_double"), "id-of-the-broker", "secret-of-the-broker")
            return partial(Witnesses, kind="s3", s3=server)
        case _:
            return partial(Witnesses, kind=kind.removeprefix("witnesses").removeprefix("-") or "file")


async def told(directory: Path, begin: Begin, armed: Armed | None) -> Errand:
    """A story that has come to its point, if the machine let it."""
    begun = lambda again, impatient: nullcontext(begin(again, armed, impatient))  # noqa: E731
    return await brought_to_its_point(directory, armed, IMPATIENT, begun)


@pytest.mark.parametrize("kind", KINDS)
async def test_which_points_there_are(tmp_path: Path, kind: str, begin: Begin) -> None:
    """A story without a fault passes exactly the points that were looked at."""
    errand = await told(tmp_path / "story", begin, None)
    passed = [point for point in errand.points.passed if not _BY_CHANCE.get(kind, _NONE).match(point)]
    assert sorted(passed) == sorted(reviewed(kind))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_every_fault_at_every_point(tmp_path: Path, kind: str, begin: Begin) -> None:
    """Whatever fails wherever: it comes to its end, once, and is in the trail."""
    assert await broken_at(kind, tmp_path, lambda where, armed: told(where, begin, armed)) == []
