"""A credential that is asked for wrapped: who may, for how long, and what the trail knows again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.audit.record import decode
from broker.errors import InvalidInput, Reason
from broker.lease.credential import WrappedSecret
from broker.lease.fingerprint import fingerprint, secrets_in
from broker.ports.connectors import Checkpoint, Handle, Issued
from broker.ports.leases import LeaseFilter
from broker.scope.model import Scope
from broker.secret import Secret
from broker.stores.access_rows import packed_request, unpacked_request
from tests.connectors.fake import contract
from tests.issuance.world import ALICE, TENANT, TTL, StaticKeys, World, template

WRAP = timedelta(seconds=30)
KEPT = WrappedSecret(
    Secret("s.once"), "acc", datetime(2031, 5, 1, tzinfo=UTC), "https://bao.test", "", "database_login"
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A template that allows it, and an upstream that can."""
    opened = await World.open(tmp_path)
    opened.deploy = replace(opened.deploy, templates={"orders-read": template(wrapping=True)})
    opened.upstream.contract = replace(contract(), wraps=True)
    yield opened
    await opened.close()


async def refusal(world: World, wrap: timedelta = WRAP) -> InvalidInput:
    task = await world.task()
    with pytest.raises(InvalidInput) as refused:
        await world.grant(task, wrap=wrap)
    assert not await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 10)
    assert world.upstream.calls == []
    assert refused.value.metadata["field"] == "wrap"
    return refused.value


async def test_a_connector_that_cannot_is_named_and_nothing_is_issued(world: World) -> None:
    world.upstream.contract = contract()
    refused = await refusal(world)
    assert refused.reason is Reason.WRAPPING_UNSUPPORTED
    assert "connector fake" in refused.message


async def test_a_template_has_to_allow_it(world: World) -> None:
    world.deploy = replace(world.deploy, templates={"orders-read": template()})
    assert (await refusal(world)).reason is Reason.WRAPPING_NOT_ALLOWED


@pytest.mark.parametrize("wrap", [timedelta(0), timedelta(seconds=-1), timedelta(seconds=0.999), TTL + WRAP])
async def test_it_is_kept_from_a_second_to_its_own_ttl(world: World, wrap: timedelta) -> None:
    assert (await refusal(world, wrap)).reason is Reason.WRAP_TTL_INVALID


@pytest.mark.parametrize("wrap", [timedelta(seconds=1), TTL])
async def test_the_bounds_are_allowed(world: World, wrap: timedelta) -> None:
    await world.grant(await world.task(), wrap=wrap)


async def test_the_trail_knows_the_secret_and_what_unwraps_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, asked = world.upstream.issue, []

    async def issue(handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        asked.append(scope.wrap)
        issued = await plain(handle, scope, expires_at, checkpoint)
        return replace(issued, credential=KEPT, inside=issued.credential)

    monkeypatch.setattr(world.upstream, "issue", issue)
    grant = await world.grant(await world.task(), wrap=WRAP)
    assert asked == [WRAP]
    assert grant.credential is KEPT
    records = [decode(row) for row in await world.store.audit_since(0, 100)]
    (told,) = [each for each in records if each.type == "lease.issued"]
    _, key = StaticKeys().current()
    (attempt,) = world.upstream.alive
    observed = told.data["observed"]
    assert isinstance(observed, dict)
    assert observed["secrets"] == {
        "key_id": "k1",
        "wrapping_token": fingerprint(key, Secret("s.once")),
        "password": fingerprint(key, Secret(f"password-{attempt}")),
    }
    assert [name for name, _ in secrets_in(KEPT)] == ["wrapping_token"]


async def test_it_is_part_of_what_was_asked(world: World) -> None:
    plain = world.asked(await world.task())
    wrapped = replace(plain, wrap=WRAP)
    assert len({plain.digest(), wrapped.digest(), replace(plain, wrap=TTL).digest()}) == 3
    for each in (plain, wrapped):
        kept = unpacked_request(json.loads(packed_request(each)))
        assert (kept.wrap, kept.digest()) == (each.wrap, each.digest())
