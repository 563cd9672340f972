"""What the upstream returned, held against what was asked; and what becomes of a grant that is not what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.audit.record import decode
from broker.errors import Reason, UpstreamFailed
from broker.issuance.comparison import clamped, mismatch
from broker.lease.credential import DatabaseLogin
from broker.lease.machine import State
from broker.ports.connectors import Issued, Returned
from broker.ports.leases import EndCause, LeaseFilter
from broker.secret import Secret
from tests.connectors.fake import IssueMishap, contract
from tests.connectors.support import make_scope
from tests.issuance.world import ALICE, TENANT, TTL, World

ASKED = datetime(2031, 5, 1, 12, 5, tzinfo=UTC)
SCOPE = make_scope({"role": "orders"}, account="dev")
LOGIN = DatabaseLogin("postgresql", "db.test", 5432, "orders", "x-jb-a-x", Secret("p"))
BOUND = replace(contract(), on_expiry=timedelta(seconds=5))


def found(seconds: float = 0, **returned: str) -> str:
    """What is wrong with a grant that ends ``seconds`` after what was asked; empty where nothing is."""
    issued = Issued(LOGIN, ASKED + timedelta(seconds=seconds), returned=Returned(**returned))
    wrong = mismatch(issued, SCOPE, "jb-a", ASKED, BOUND)
    if wrong is None:
        return ""
    assert wrong.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert not wrong.outcome_known  # something was made
    return wrong.message


@pytest.mark.parametrize(
    ("seconds", "returned", "wrong"),
    [
        (0, {}, ""),
        (5, {}, ""),  # within the contract's on_expiry
        (5.001, {}, "it ends at"),
        (3600, {}, "it ends at"),
        (-299, {}, ""),  # less is no mismatch
        (0, {"account": "dev", "role": "orders", "name": "token-jb-a-77"}, ""),
        (0, {"account": "prod"}, "account 'prod'"),
        (0, {"account": ""}, "account ''"),  # told, and empty, is not the account that was asked
        (0, {"role": "orders-admin"}, "role 'orders-admin'"),
        (0, {"role": "ORDERS"}, "role 'ORDERS'"),
        (0, {"name": "token-jb-b-77"}, "name 'token-jb-b-77'"),
        (0, {"name": ""}, "name ''"),
        (0, {"account": "pr\u043ed"}, r"account 'pr\u043ed'"),  # told so that it cannot be mistaken
    ],
)
def test_what_is_not_what_was_asked(seconds: float, returned: dict[str, str], wrong: str) -> None:
    told = found(seconds, **returned)
    assert bool(told) is bool(wrong)
    assert wrong in told


def test_an_end_without_a_time_zone_is_no_end() -> None:
    issued = Issued(LOGIN, ASKED.replace(tzinfo=None))
    assert mismatch(issued, SCOPE, "jb-a", ASKED, BOUND) is not None


def test_the_role_is_compared_under_either_name_of_the_grant() -> None:
    scope = make_scope({"role_name": "reader"})
    issued = Issued(LOGIN, ASKED, returned=Returned(role="reader"))
    assert mismatch(issued, scope, "jb-a", ASKED, BOUND) is None
    assert mismatch(issued, make_scope({}), "jb-a", ASKED, BOUND) is not None


@pytest.mark.parametrize(("seconds", "short"), [(0, 0), (-1, 0), (-1.5, 1.5), (-60, 60), (5, 0)])
def test_a_clamp_is_what_is_more_than_rounding(seconds: float, short: float) -> None:
    assert clamped(Issued(LOGIN, ASKED + timedelta(seconds=seconds)), ASKED) == timedelta(seconds=short)


# ------------------------------------------------------------------ in the flow


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.open(tmp_path)
    yield made
    await made.close()


@pytest.mark.parametrize("mishap", [IssueMishap.LONGER, IssueMishap.WIDER, IssueMishap.ELSEWHERE, IssueMishap.ANOTHERS])
async def test_what_is_not_what_was_asked_is_revoked_and_denied(world: World, mishap: IssueMishap) -> None:
    world.upstream.issue_mishaps.append(mishap)
    with pytest.raises(UpstreamFailed) as refused:
        await world.grant(await world.task())
    assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH

    async def over() -> bool:
        (lease,) = await world.store.list_leases(LeaseFilter(TENANT, str(ALICE.spiffe_id)), "", 10)
        return (lease.state, lease.cause) == (State.REVOKED, EndCause.GRANT_MISMATCH)

    await world.settle(over)
    assert world.upstream.alive == {}
    records = [decode(body) for body in await world.store.audit_since(0, 100)]
    assert [each.type for each in records if each.type == "lease.issued"] == []
    (ending,) = [each for each in records if each.type == "lease.revoking"]
    assert ending.data["cause"] == "GRANT_MISMATCH"
    assert "something else than was asked" in str(ending.data)


async def test_a_clamped_ttl_is_granted_and_told(world: World) -> None:
    world.upstream.issue_mishaps.append(IssueMishap.SHORTER)
    grant = await world.grant(await world.task())
    assert grant.lease is not None
    assert grant.lease.expires_at == world.clock.now() + TTL / 2
    records = [decode(body) for body in await world.store.audit_since(0, 100)]
    (issued,) = [each for each in records if each.type == "lease.issued"]
    assert "clamped_seconds" in str(issued.data)
