"""What people say for the record, at desks that take a word of theirs: it must say something."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.errors import InvalidInput, Reason
from broker.issuance.forgetting import ForgettingDesk
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.recovering import RecoveryDesk
from broker.issuance.texts import TextDesk
from tests.issuance.world import World, id_tokens


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


def _forget(world: World, fresh: FreshLogins, said: str) -> Awaitable[Any]:
    return ForgettingDesk(world.store, fresh).forget(world.person("bea"), "lease-1", said, fresh_id_token="x")


def _release(world: World, fresh: FreshLogins, said: str) -> Awaitable[Any]:
    desk = RecoveryDesk(world.store, world.gate, fresh, world.clock)
    return desk.release(world.person("bea"), "recovery-1", "r1", said, fresh_id_token="x")


def _erase(world: World, fresh: FreshLogins, said: str) -> Awaitable[Any]:
    return TextDesk(world.store, world.clock).erase(world.person("bea"), "task-1", said)


@pytest.mark.parametrize("said", [" ", "\u200b", "\u2060\n"])
@pytest.mark.parametrize("act", [_forget, _release, _erase])
async def test_a_reason_that_nobody_can_read_is_none(
    world: World, act: Callable[[World, FreshLogins, str], Awaitable[Any]], said: str
) -> None:
    before = await world.store.audit_since(0, 1_000)
    with pytest.raises(InvalidInput) as refused:
        await act(world, FreshLogins(id_tokens(world.provider), world.clock), said)
    assert (refused.value.reason, refused.value.metadata["field"]) == (Reason.FIELD_INVALID, "reason")
    assert await world.store.audit_since(0, 1_000) == before
