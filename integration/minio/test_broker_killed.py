"""A 5-second credential, and the broker killed at second 1: at second 6 MinIO refuses it all the same.

Everything is real: brokerd as a process, the agent's SVID over mTLS, the session in MinIO.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.cli.demo.world import READ_S3, World
from broker.dev.minio import REPORTS
from integration.minio.sessions import wait_for
from integration.stacks import stack_world
from tests.connectors.harness_minio import OTHER_DAY, REPORT, said_to
from tests.patience import eventually

TTL = timedelta(seconds=5)


@pytest.fixture
async def world(binary: Path, directory: Path) -> AsyncIterator[World]:
    async with stack_world(directory / "stack", binary) as made:
        yield made


async def test_dead_at_second_6_with_the_broker_killed_at_second_1(world: World) -> None:
    minio, reporter = world.facts.minio, world.agent("reporter")
    assert minio is not None
    task = await reporter.start_task("ask, and see the broker die")
    grant = await world.ask(reporter, READ_S3, task.id, TTL)
    session, begun, ends = grant.aws, grant.lease.create_time, grant.lease.expire_time
    assert begun is not None
    assert ends is not None
    assert ends <= begun + TTL
    await asyncio.to_thread(wait_for, begun + timedelta(seconds=1))
    await world.kill_brokerd()
    # On a machine that stood still until now there is nothing to see; MinIO itself decides by its clock.
    assert said_to(minio, session) == REPORTS[REPORT] or world.clock.now() >= ends
    assert said_to(minio, session, OTHER_DAY) == "AccessDenied"
    await asyncio.to_thread(wait_for, begun + timedelta(seconds=6))
    # Time alone: MinIO knows the session yet, and would for a quarter of an hour.
    assert said_to(minio, session) == "AccessDenied"
    await world.start_brokerd()

    async def is_revoked() -> bool:
        return (await world.agent("reporter").lease(grant.lease.id)).state == "REVOKED"

    await eventually(is_revoked)
    assert said_to(minio, session) == "InvalidAccessKeyId"
