"""Access requests and votes that somebody else changed: never approved, never redeemed, and ended all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.approval.machine import RequestState
from broker.errors import Reason, Tampered
from broker.ports.access_requests import FiledRequest, RequestFilter
from broker.stores.access_rows import RequestRow, VoteRow
from broker.stores.invariants import LedgerChecks
from broker.stores.sqlite import SqliteStore
from tests.stores.make import ALICE, TASK, TENANT, Keys, at, filing, new_task, redeeming, vote
from tests.stores.test_tampering import change, tampered


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "w")
    await store.start_task(new_task())
    yield store
    await store.close()


def enough(filed: FiledRequest) -> bool:
    return True


async def leases(store: SqliteStore) -> int:
    return len(await store.task_leases(TENANT, TASK))


REQUEST = {
    "digest": "0" * 64,
    "request": "{}",
    "scope": '{"resource":"*"}',
    "approvals": '["none"]',
    "interests": "[]",
    "holder": "spiffe://example.org/agent/bob",
    "principal": "bob",
    "template_digest": "0" * 64,
    "policy_digest": "0" * 64,
    "contract_class": "EXPIRY_ONLY",
    "expires_at": 10**13,
    "redeem_within": 10**9,
    "due_at": 10**13,
    "plan": "another",
    "tool_call": "another",
    "epoch": 77,
}


@pytest.mark.parametrize("column", REQUEST)
async def test_a_changed_request_is_not_approved(store: SqliteStore, column: str) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await change(store, f"UPDATE access_requests SET {column} = ?", REQUEST[column])
    await tampered(store.get_access_request(TENANT, asked.id))
    for digest in (asked.digest, "0" * 64):
        await tampered(store.vote(TENANT, asked.id, digest, vote(), enough))
    # It does not hide the others from the people who look at all of them.
    assert await store.list_access_requests(RequestFilter(TENANT), "", 10) == []


@pytest.mark.parametrize("column", [*REQUEST, "redeem_by", "approved_at"])
async def test_a_changed_request_is_not_redeemed(store: SqliteStore, column: str) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(), enough)
    await change(store, f"UPDATE access_requests SET {column} = ?", REQUEST.get(column, 10**12))
    holder = REQUEST["holder"] if column == "holder" else ALICE
    await tampered(store.open_intent(redeeming(asked, holder=holder)))
    assert await leases(store) == 0


async def test_a_request_that_is_made_approved_is_not(store: SqliteStore) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await change(
        store,
        "UPDATE access_requests SET state = 'APPROVED', approved_at = 1, redeem_by = ?, due_at = ?",
        10**13,
        10**13,
    )
    await tampered(store.open_intent(redeeming(asked)))
    assert await leases(store) == 0


async def test_an_older_version_of_its_row_does_not_make_a_second_lease(store: SqliteStore) -> None:
    """Its MAC holds, for it was ours once. The lease that it funded is in the way of another."""
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(), enough)
    view = store._readers._own
    columns = [row[1] for row in view.connection.execute("PRAGMA table_info(access_requests)")]
    old = view.connection.execute("SELECT * FROM access_requests").fetchone()
    await store.open_intent(redeeming(asked))
    await change(store, f"UPDATE access_requests SET ({', '.join(columns)}) = ({', '.join('?' * len(columns))})", *old)
    assert (await store.get_access_request(TENANT, asked.id)).state is RequestState.APPROVED
    for name in ("redeem-2", "redeem-3"):
        await tampered(store.open_intent(redeeming(asked, name)))
    assert await leases(store) == 1


VOTE = {
    "yes": 0,
    "rule": "security",
    "issuer": "https://other.test",
    "subject": "cyd",
    "groups": '["security"]',
    "how": "x",
    "note": "x",
    "at": 1,
    "digest": "0" * 64,
    "request_id": "x",  # of a vote that was given without one, as in older schemas
}


@pytest.mark.parametrize("column", VOTE)
async def test_a_changed_vote_carries_nothing(store: SqliteStore, column: str) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(), lambda filed: False)
    also = ", rule = ''" if column == "yes" else ""
    await change(store, f"UPDATE access_votes SET {column} = ?{also}", VOTE[column])
    await tampered(store.vote(TENANT, asked.id, asked.digest, vote("eli"), enough))
    await tampered(store.get_access_request(TENANT, asked.id))


@pytest.mark.parametrize("request_id", ["", "approve-1"])
async def test_the_checks_of_a_ledger_know_an_honest_vote_from_a_changed_one(
    store: SqliteStore, tmp_path: Path, request_id: str
) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(request_id=request_id), lambda filed: False)

    def found() -> list[str]:
        with LedgerChecks(tmp_path / "ledger.sqlite3") as checks:
            return [each.where for each in checks.violations(Keys())]

    assert found() == []
    await change(store, "UPDATE access_votes SET note = 'x'")
    assert found() == [f"access_votes {TENANT}/{asked.id}"]


async def test_a_vote_that_nobody_gave_carries_nothing(store: SqliteStore) -> None:
    asked, other = filing("1"), filing("2")
    for each in (asked, other):
        await store.open_access_request(each)
    await store.vote(TENANT, other.id, other.digest, vote(), lambda filed: False)
    # A true vote, moved to another request.
    await change(store, "UPDATE access_votes SET access_request_id = ?, digest = ?", asked.id, asked.digest)
    await tampered(store.vote(TENANT, asked.id, asked.digest, vote("eli"), enough))


async def test_a_vote_that_is_changed_after_the_approval_keeps_it_from_being_redeemed(store: SqliteStore) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(), enough)
    await change(store, "UPDATE access_votes SET note = 'x'")
    await tampered(store.open_intent(redeeming(asked)))
    assert await leases(store) == 0


async def test_every_column_is_under_the_mac(store: SqliteStore) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await store.vote(TENANT, asked.id, asked.digest, vote(request_id="v1"), enough)
    view = store._readers._own
    for table, query in ((RequestRow.TABLE, "access_request_by_id"), (VoteRow.TABLE, "votes_of_request")):
        (*values, mac, key_id) = view.all(query, {"tenant": TENANT, "id": asked.id})[0]
        columns = [row[1] for row in view.connection.execute(f"PRAGMA table_info({table})")]
        assert len(values) == len(columns) - 2
        assert view.seal.holds(table, values, mac, key_id)
        for index, value in enumerate(values):
            changed: Any = value + 1 if isinstance(value, int) else f"{value}x"
            assert not view.seal.holds(table, [*values[:index], changed, *values[index + 1 :]], mac, key_id)


@pytest.mark.parametrize("how", ["lapse", "withdraw", "task"])
async def test_what_fails_its_mac_is_ended_all_the_same_and_stays_unfit(store: SqliteStore, how: str) -> None:
    asked = filing()
    await store.open_access_request(asked)
    await change(store, "UPDATE access_requests SET approvals = '[\"none\"]'")
    if how == "lapse":
        assert await store.lapse_access_requests(at(101), 10) == 1
        assert await store.lapse_access_requests(at(101), 10) == 0
    elif how == "withdraw":
        with pytest.raises(Tampered) as told:
            await store.withdraw_access_request(TENANT, asked.id, ALICE, at(2))
        assert told.value.reason is Reason.ROW_MAC_MISMATCH
    else:
        assert await store.end_due_tasks(at(600), 10) == 1
    (state, plan), mac = (
        store._readers._own.connection.execute("SELECT state, plan FROM access_requests").fetchone(),
        store._readers._own.connection.execute("SELECT mac FROM access_requests").fetchone()[0],
    )
    assert state in ("LAPSED", "WITHDRAWN")
    assert (plan, mac) == ("", bytes(32))
    await tampered(store.get_access_request(TENANT, asked.id))
