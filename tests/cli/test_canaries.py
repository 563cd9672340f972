"""``broker connectors canary|canaries`` against a brokerd: the story of a run, and what was measured last."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from click.testing import Result

from broker.cli.canaries import story
from broker.cli.contracts import ago, precise
from broker.client.model import CanaryMeasurement
from tests.api.served import Served
from tests.cli.at_the_door import at_the_door, served_quietly
from tests.connectors.fake import RevokeMishap, UseMishap

Run = Callable[..., Awaitable[Result]]
NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path) as running:
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``broker connectors`` as sam, an operator."""
    return partial(at_the_door(served, monkeypatch), "sam", "connectors")


async def test_one_run_tells_its_story_and_the_contract_shows_it(run: Run) -> None:
    listed = [line.split() for line in (await run("canaries")).stdout.splitlines()[1:]]
    assert listed == [[name, "not", "measured", "yet"] for name in ("minio", "openbao-orders")]
    done = await run("canary", "openbao-orders")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"canary of openbao-orders: lease lease-\S+, used \d+ times around its revocation", lines[0])
    assert re.fullmatch(r"  refused at most \d+ ms after its revocation", lines[1])
    assert lines[-1] == "  the contract promises 1s: kept"
    _, row = (await run("canaries")).stdout.splitlines()[1:]
    assert re.fullmatch(r"openbao-orders +its revocation +\d+ ms +1s +\d+ s ago *", row)
    shown = (await run("show", "openbao-orders")).stdout
    assert re.search(r"^  measured        \d+ ms after revocation, \d+ s ago$", shown, re.MULTILINE)
    found = json.loads((await run("canary", "openbao-orders", "--format", "json")).stdout)
    assert (found["outcome"], found["kind"]) == ("WITHIN", "ON_REVOKE")


async def test_a_contract_that_is_not_kept_exits_1_and_is_told_everywhere(run: Run, served: Served) -> None:
    served.upstream.revoke_mishaps.append(RevokeMishap.LIES)
    done = await run("canary", "openbao-orders", "--kind", "revoke")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "  the contract promises 1s: NOT KEPT"
    assert "THE CONTRACT IS NOT KEPT" in (await run("canaries")).stdout
    assert "THE CONTRACT IS NOT KEPT" in (await run("show", "openbao-orders")).stdout


async def test_what_cannot_be_measured_is_told_with_its_reason(run: Run, served: Served) -> None:
    served.upstream.use_mishaps.append(UseMishap.NO_ANSWER)
    done = await run("canary", "openbao-orders")
    assert done.exit_code == 1
    assert done.stdout.startswith("canary of openbao-orders: cannot be measured because ")
    assert "since then it could not be measured" in (await run("canaries")).stdout


async def test_a_connector_without_one(run: Run) -> None:
    done = await run("canary", "aws")
    assert (done.exit_code, done.stdout) == (3, "")
    assert "CANARY_NOT_FOUND" in done.stderr


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.04, "40 ms"), (0, "0 ms"), (1.25, "1.25 s"), (-3.1, "-3.1 s"), (75.04, "75 s")]
)
def test_how_long(seconds: float, told: str) -> None:
    assert precise(timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0 s ago"), (59, "59 s ago"), (725, "12 min ago"), (7_300, "2 h ago"), (90_000, "1 d ago")],
)
def test_how_long_ago(seconds: float, told: str) -> None:
    assert ago(NOW - timedelta(seconds=seconds), NOW) == told


def test_the_story_of_who_died_early_and_of_who_lives_on() -> None:
    found = CanaryMeasurement(
        id="c",
        connector="db",
        kind="ON_EXPIRY",
        outcome="WITHIN",
        measured=timedelta(seconds=-3),
        at_least=timedelta(seconds=-9),
        bound=timedelta(seconds=5),
        begin_time=NOW,
        since_time=NOW,
        confirm_time=None,
        tell_time=NOW,
        lease_id="lease-1",
        looks=7,
        asked_by="broker",
        why="",
    )
    assert list(story(found))[1:] == [
        "  refused 3 s before its deadline: it died early",
        "  the contract promises 5s: kept",
    ]
    alive = replace(found, outcome="ALIVE", measured=None, at_least=timedelta(seconds=8))
    assert list(story(alive))[1:] == [
        "  STILL WORKS: seen to work 8 s after its deadline",
        "  the contract promises 5s: NOT KEPT",
    ]
