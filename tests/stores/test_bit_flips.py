"""FLIP: one bit of the whole database file is flipped, wherever it may be; what comes of it is refused or harmless.

Not what a thief of the file would do, but a disk, a cable, a memory cell. Structure, rows, indexes, free space: nobody
chooses. Never does anything of a lease read as later, wider or more alive than it is.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest

from broker.errors import BrokerError
from broker.lease.machine import TERMINAL
from broker.ports.leases import EndCause, Lease
from broker.ports.tasks import Task, TaskState
from broker.stores.invariants import LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.stores.contract import grant, revoke_all
from tests.stores.make import ALICE, TASK, TENANT, Keys, at, intent, new_task

FLIPS = 500
ENDED = "task-ended"
T = TypeVar("T")
SCOPE = attrgetter(
    *("tenant", "id", "holder", "task_id", "template", "connector", "account", "environment"),
    *("resource", "access", "actions", "parameters", "step", "plan_id", "parent_lease_id", "delegation_id"),
)


class Truth(NamedTuple):
    """What the ledger said before."""

    leases: dict[str, Lease]
    tasks: dict[str, Task]
    living: frozenset[str]  # attempts


async def story(path: Path) -> Truth:
    """A ledger with a bit of everything: leases that live, are being issued, are over; an ended task."""
    store = await SqliteStore.open(path, Keys(), "w")
    await store.start_task(new_task())
    await store.start_task(new_task(ENDED))
    for number in range(6):
        await grant(store, f"live-{number}", max_live_leases=1000)
    await store.open_intent(intent("begun", max_live_leases=1000))
    await grant(store, "over", task=ENDED, max_live_leases=1000)
    await store.end_task(TENANT, ENDED, TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(3))
    await revoke_all(store, now=4)
    leases = {each.id: each for task in (TASK, ENDED) for each in await store.task_leases(TENANT, task)}
    tasks = {task: await store.get_task(TENANT, task) for task in (TASK, ENDED)}
    await store.close()
    assert len(leases) == 8
    return Truth(leases, tasks, frozenset(f"attempt-{id_}" for id_ in [*(f"live-{n}" for n in range(6)), "begun"]))


async def unless_refused(call: Awaitable[T]) -> T | None:
    """Its answer; None where the broker says, in its own words, that it will not."""
    try:
        return await call
    except BrokerError:
        return None


def no_more_than(lease: Lease, was: Lease) -> bool:
    """Not later, not wider, not more alive; nor anybody else's."""
    return (
        SCOPE(lease) == SCOPE(was)
        and lease.expires_at <= was.expires_at
        and not (was.state in TERMINAL and lease.state not in TERMINAL)
    )


async def harmless(path: Path, truth: Truth) -> str:
    """How the flip came out; raises AssertionError where harm was done."""
    store = await unless_refused(SqliteStore.open(path, Keys(), "w2"))
    if store is None:
        return "did not open"
    refused = False
    for id_, was in truth.leases.items():
        lease = await unless_refused(store.get_lease(TENANT, id_, was.holder))
        refused |= lease is None
        assert lease is None or no_more_than(lease, was)
    for id_, task_was in truth.tasks.items():
        task = await unless_refused(store.get_task(TENANT, id_))
        refused |= task is None
        if task is not None:
            assert task.deadline <= task_was.deadline and task.participants == task_was.participants
            assert task.state is task_was.state
    opened = await unless_refused(store.open_intent(intent("new", now=5, max_live_leases=1000)))
    assert opened is None or opened.attempt.expires_at == at(65)
    assert await unless_refused(store.open_intent(intent("none", now=5, task=ENDED, max_live_leases=1000))) is None
    claimed = await unless_refused(store.claim_due("bao", at(1000), 100, timedelta(seconds=30)))
    known = truth.living | {"attempt-new"}
    whole = claimed is not None and {each.id for each in claimed} == (known if opened else truth.living)
    await unless_refused(store.close())
    if refused or opened is None:
        return "refused in part"
    return "as before" if whole else "found by the sweep of what is upstream"


@pytest.mark.slow
async def test_single_bits_anywhere(tmp_path: Path) -> None:
    """F34: 500 flips; each is refused or harmless, and most of the file is not so precious that all would stop."""
    truth = await story(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    written = [place for place, byte in enumerate(data) if byte]
    chance = random.Random(34)
    outcomes: dict[str, int] = {}
    copy = tmp_path / "copy"
    for turn in range(FLIPS):
        # Every other one where something is written: most of a young file is empty.
        place, bit = chance.choice(written) if turn % 2 else chance.randrange(len(data)), chance.randrange(8)
        for leftover in tmp_path.glob("copy*"):
            leftover.unlink()
        copy.touch(0o600)
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        try:
            outcome = await harmless(copy, truth)
        except Exception as harm:
            raise AssertionError(f"flip {turn}: bit {bit} of byte {place}") from harm
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"\n{FLIPS} flips in {len(data)} bytes: {outcomes}")
    assert outcomes["as before"] > FLIPS // 2
    assert outcomes["refused in part"] > 0


async def test_the_judge_can_see(tmp_path: Path) -> None:
    """FLIP: a lease that lives longer, is another's, or is alive again, is harm."""
    truth = await story(tmp_path / "whole")
    over, live = truth.leases["lease-over"], truth.leases["lease-live-1"]
    assert no_more_than(live, live) and no_more_than(over, over)
    assert not no_more_than(replace(live, expires_at=live.expires_at + timedelta(milliseconds=1)), live)
    assert not no_more_than(replace(over, state=live.state), over)
    assert not no_more_than(replace(live, holder="spiffe://example.org/mallory"), live)
    with LedgerChecks(tmp_path / "whole") as checks:
        assert list(checks.violations(Keys())) == []
