"""Prompts, tool calls and plans in whole: kept, read with the key, erased; and what a task is reported to have done."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.record import decode
from broker.audit.report import Artifact, Mutation, TaskReport
from broker.errors import Conflict, Reason
from broker.ports.tasks import TaskState
from tests.issuance.world import TENANT, World

PROMPT = "sell everything, quietly"
NOW = timedelta(0)
REPORT = TaskReport((Artifact("s3://out/report.csv", "ab" * 32),), (Mutation("table orders", "UPDATED", count=3),))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


async def trail(world: World, kind: str) -> list[dict[str, object]]:
    records = [decode(body) for body in await world.store.audit_since(0, 1_000)]
    return [dict(each.data) | {"vouched_by": each.vouched_by} for each in records if each.type == kind]


async def test_texts_are_kept_encrypted_and_read_by_task(world: World, tmp_path: Path) -> None:
    task, other = await world.task(), await world.task(name="t2")
    grant = await world.grant(task, prompt=PROMPT, plan="step by step")
    await world.grant(task, name="r2")  # says nothing, so nothing is kept
    (kept,) = await world.store.claimed_texts(TENANT, task.id)
    assert grant.lease is not None
    assert (kept.about, kept.texts) == (grant.lease.attempt_id, {"prompt": PROMPT, "plan": "step by step"})
    assert await world.store.claimed_texts(TENANT, other.id) == []
    assert await world.store.claimed_texts("another", task.id) == []
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite3*"))
    assert PROMPT.encode() not in on_disk


async def test_refused_requests_keep_nothing(world: World) -> None:
    task = await world.task()
    with pytest.raises(Exception, match="resource"):
        await world.grant(task, prompt=PROMPT, resource="elsewhere")
    assert await world.store.claimed_texts(TENANT, task.id) == []


async def test_a_retry_keeps_its_own(world: World) -> None:
    task = await world.task()
    await world.grant(task, prompt=PROMPT)
    await world.grant(task, prompt=PROMPT)
    assert len({each.about for each in await world.store.claimed_texts(TENANT, task.id)}) == 2


async def test_erased_texts_are_gone_and_the_trail_says_who_did_it(world: World, tmp_path: Path) -> None:
    task, other = await world.task(), await world.task(name="t2")
    await world.grant(task, prompt=PROMPT)
    await world.grant(other, name="r2", prompt="stays")
    assert await world.store.erase_texts(TENANT, task.id, "dana", "asked for", world.clock.now())
    assert not await world.store.erase_texts(TENANT, task.id, "dana", "again", world.clock.now())
    assert await world.store.claimed_texts(TENANT, task.id) == []
    assert len(await world.store.claimed_texts(TENANT, other.id)) == 1
    assert await trail(world, "texts.erased") == [{"reason": "asked for", "vouched_by": "broker"}]
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        rows = database.execute("SELECT task_id FROM task_text_keys UNION SELECT task_id FROM claimed_texts").fetchall()
    assert rows == [(other.id,)]
    # The digests stay: what is shown later can still be compared with what was said then.
    assert all("prompt_sha256" in each for each in await trail(world, "lease.intent"))


async def test_what_is_said_after_an_erasure_has_a_key_of_its_own(world: World) -> None:
    """The erased key is nowhere any more, in the writer's memory neither."""
    task = await world.task()
    await world.grant(task, prompt=PROMPT)
    await world.grant(task, name="r2", prompt="said twice")
    assert await world.store.erase_texts(TENANT, task.id, "dana", "asked for", world.clock.now())
    await world.grant(task, name="r3", prompt="said later")
    assert [each.texts for each in await world.store.claimed_texts(TENANT, task.id)] == [{"prompt": "said later"}]


async def test_texts_are_erased_when_their_time_is_over(world: World) -> None:
    first = await world.task()
    await world.grant(first, prompt=PROMPT)
    world.later(timedelta(days=29))
    second = await world.task(name="t2")
    await world.grant(second, name="r2", prompt="younger")
    await world.upkeep.erase_texts()
    assert len(await world.store.claimed_texts(TENANT, first.id)) == 1
    world.later(timedelta(days=1, milliseconds=1))
    await world.upkeep.erase_texts()
    assert await world.store.claimed_texts(TENANT, first.id) == []
    assert len(await world.store.claimed_texts(TENANT, second.id)) == 1
    (told,) = await trail(world, "texts.erased")
    assert told["tasks"] == 1


# ------------------------------------------------------------------ what a task is reported to have done


async def test_a_report_is_the_agents_word_and_told_once(world: World) -> None:
    task = await world.task()
    await world.tasks.complete(world.caller(), task.id, NOW, REPORT)
    await world.tasks.complete(world.caller(), task.id, NOW, REPORT)
    await world.tasks.complete(world.caller(), task.id, NOW)
    (told,) = await trail(world, "task.reported")
    assert told == {**REPORT.canonical(), "vouched_by": "agent"}


async def test_a_second_report_is_refused(world: World) -> None:
    task = await world.task()
    await world.tasks.complete(world.caller(), task.id, NOW, REPORT)
    with pytest.raises(Conflict) as refused:
        await world.tasks.complete(world.caller(), task.id, NOW, TaskReport((Artifact("s3://other"),)))
    assert refused.value.reason is Reason.TASK_REPORTED
    assert len(await trail(world, "task.reported")) == 1


async def test_a_task_that_ended_by_itself_is_reported_on_afterwards(world: World) -> None:
    task = await world.task()
    await world.pass_time(timedelta(hours=9))
    assert (await world.store.get_task(TENANT, task.id)).state is TaskState.ENDED
    await world.tasks.complete(world.caller(), task.id, NOW, REPORT)
    assert len(await trail(world, "task.reported")) == 1
