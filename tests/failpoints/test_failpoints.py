"""Every point of every connector, crash, error and hang at each: F1 to F5, F7, F8, F10, F13, F14, F20, F30, F36.

A clean run says which points there are; the list in ``reviewed.toml`` says which were looked at. One that is not in
both fails: so no commit, call or send is added without its faults being tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.connectors.minio_double import minio_double
from tests.failpoints import upstreams
from tests.failpoints.calls import Passing
from tests.failpoints.points import Armed, Fault
from tests.failpoints.story import IMPATIENT, Story
from tests.failpoints.trying import broken_at, brought_to_its_point, reviewed
from tests.failpoints.upstreams import Upstream

KINDS = (
    "vault-database",
    "vault-pki",
    "vault-ssh",
    "vault-kv",
    "vault-kubernetes",
    "aws-sts",
    "minio-sts",
    "gcp-token",
    "gcp-pool",
    "postgresql",
)


@contextmanager
def upstream_of(kind: str, request: pytest.FixtureRequest, clock: Passing) -> Iterator[Upstream]:
    match kind:
        case "postgresql":
            yield upstreams.postgresql(request.getfixturevalue("shop"))
        case "aws-sts":
            yield upstreams.aws_sts(request.getfixturevalue("aws_double"))
        case "minio-sts":
            with minio_double() as double:
                yield upstreams.minio_sts(double.address)
        case "gcp-token" | "gcp-pool":
            with upstreams.google(kind, clock) as made:
                yield made
        case "vault-kubernetes":
            bao = request.getfixturevalue("openbao_server")
            yield upstreams.vault_kubernetes(bao, request.getfixturevalue("cluster"))
        case _:
            make = getattr(upstreams, kind.replace("-", "_"))
            yield make(request.getfixturevalue("openbao_server"))


async def told(directory: Path, kind: str, request: pytest.FixtureRequest, armed: Armed | None) -> Story:
    """A story that has come to its point, if the machine let it."""

    @contextmanager
    def begin(again: Path, impatient: float) -> Iterator[Story]:
        clock = Passing()
        with upstream_of(kind, request, clock) as upstream:
            yield Story(again, upstream, clock, armed, impatient)

    return await brought_to_its_point(directory, armed, IMPATIENT, begin)


@pytest.mark.parametrize("kind", KINDS)
async def test_which_points_there_are(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """A story without a fault passes exactly the points that were looked at."""
    story = await told(tmp_path / "story", kind, request, None)
    assert sorted(story.points.passed) == sorted(reviewed(kind))


async def test_a_crash_after_each_commit(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """F2, F3, F4, F14: one connector, the quick part of what comes next."""
    for number, point in enumerate(reviewed("minio-sts")):
        if point.startswith("commit") and point.endswith("after"):
            story = await told(tmp_path / str(number), "minio-sts", request, Armed(point, Fault.CRASH))
            assert story.points.fired


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_every_fault_at_every_point(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    """F1, F2, F3, F4, F5, F7, F8, F10, F13, F14, F20, F30, F36: whatever fails wherever, all ends, and is known."""
    assert await broken_at(kind, tmp_path, lambda where, armed: told(where, kind, request, armed)) == []
