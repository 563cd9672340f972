"""Break-glass in a SQLite file: what somebody with a database client can do to it, and what a full disk does."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.breakglass.reviews import OverrideKind
from broker.errors import BrokerError, Reason
from tests.issuance.emergency import Emergency
from tests.issuance.test_break_glass import refused

TABLE = "break_glass_uses"


def edit(path: Path, statement: str, *values: Any) -> None:
    """What an intruder does."""
    connection = sqlite3.connect(path / "ledger.sqlite3")
    with connection:
        assert connection.execute(statement, values).rowcount >= 1
    connection.close()


async def closed_with_an_overdue_review(path: Path) -> tuple[str, Any]:
    glass = await Emergency.open(path)
    use = await glass.ended()
    now = glass.world.clock.now() + timedelta(hours=24)
    await glass.world.close()
    return use.lease_id, now


async def again(path: Path, now: Any) -> Emergency:
    glass = await Emergency.open(path)
    glass.world.clock.advance(now - glass.world.clock.now())
    return glass


@pytest.mark.parametrize(
    "forged",
    [
        "reviewed_at = 5, reviewer = 'https://idp.test#eli', reviewer_name = 'Eli', findings = 'fine'",
        "void = 1",
        "review_due = review_due + 1000000000",
        "groups = '[\"dba\"]'",
        "created_at = created_at + 1000",
    ],
)
async def test_a_review_that_nobody_made_unblocks_nothing(tmp_path: Path, forged: str) -> None:
    _, now = await closed_with_an_overdue_review(tmp_path)
    edit(tmp_path, f"UPDATE {TABLE} SET {forged}")
    glass = await again(tmp_path, now)
    try:
        assert await refused(glass.use("cyd", "g2")) is Reason.ROW_MAC_MISMATCH
        assert not glass.world.upstream.alive
        await glass.tend()  # what is left does not stop over it
    finally:
        await glass.world.close()


async def test_a_lease_whose_badge_was_forged_is_not_shown_as_sound(tmp_path: Path) -> None:
    lease_id, now = await closed_with_an_overdue_review(tmp_path)
    edit(tmp_path, f"UPDATE {TABLE} SET person = 'https://idp.test#fay'")
    glass = await again(tmp_path, now)
    try:
        assert await refused(glass.desk.get(glass.person("eli"), lease_id)) is Reason.ROW_MAC_MISMATCH
    finally:
        await glass.world.close()


async def test_the_database_itself_keeps_who_may_not_review(tmp_path: Path) -> None:
    await closed_with_an_overdue_review(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        edit(tmp_path, f"UPDATE {TABLE} SET reviewer = person, reviewed_at = 5, findings = 'fine'")


async def test_a_word_that_nobody_gave_passes_over_nothing(tmp_path: Path) -> None:
    _, now = await closed_with_an_overdue_review(tmp_path)
    glass = await again(tmp_path, now)
    await glass.override("eli", OverrideKind.REVIEW, "sre", "cyd")
    await glass.world.close()
    edit(
        tmp_path,
        "INSERT INTO break_glass_overrides SELECT tenant, 'over-x', kind, subject, person, 'https://idp.test#fay',"
        " by_name, reason, proof, 'forged', request_digest, created_at, expires_at, used_by, mac, mac_key_id"
        " FROM break_glass_overrides",
    )
    glass = await again(tmp_path, now)
    try:
        with pytest.raises(BrokerError) as caught:
            await glass.use("cyd", "g2")
        assert caught.value.reason is Reason.ROW_MAC_MISMATCH
    finally:
        await glass.world.close()
