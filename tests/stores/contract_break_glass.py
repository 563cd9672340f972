"""What of break-glass every ledger keeps, whatever somebody with a database client does to it.

An adapter gives the ``ledger`` fixture: a :class:`GlassLedger`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol

import pytest

from broker.breakglass.reviews import OverrideKind
from broker.errors import BrokerError, Reason
from broker.ports.trail import Evidence
from tests.issuance.emergency import Emergency
from tests.issuance.test_break_glass import refused
from tests.issuance.world import TENANT

TABLE = "break_glass_uses"


class GlassLedger(Protocol):
    """A database, under any number of worlds one after the other."""

    refusals: type[Exception]  # what it raises where the schema itself refuses a change

    async def open(self) -> Emergency:
        """A world on it."""
        ...

    def edit(self, statement: str) -> int:
        """What an intruder does; how many rows were changed."""
        ...


async def closed_with_an_overdue_review(ledger: GlassLedger) -> tuple[str, datetime]:
    glass = await ledger.open()
    use = await glass.ended()
    now = glass.world.clock.now() + timedelta(hours=24)
    await glass.world.close()
    return use.lease_id, now


async def again(ledger: GlassLedger, now: datetime) -> Emergency:
    glass = await ledger.open()
    glass.world.clock.advance(now - glass.world.clock.now())
    return glass


class BreakGlassContract:
    """Uses, their reviews, and words that pass over them."""

    async def test_an_overdue_review_blocks_across_a_restart_and_its_review_unblocks(self, ledger: GlassLedger) -> None:
        lease_id, now = await closed_with_an_overdue_review(ledger)
        glass = await again(ledger, now)
        try:
            assert await refused(glass.use("cyd", "g2")) is Reason.BREAK_GLASS_BLOCKED
            await glass.review(lease_id)
            assert (await glass.use("cyd", "g2")).lease is not None
        finally:
            await glass.world.close()

    async def test_a_recovery_that_another_replica_entered_stops_it_before_that_is_heard(
        self, ledger: GlassLedger
    ) -> None:
        """F35: the gate of this one knows nothing of it yet."""
        glass = await ledger.open()
        try:
            now = glass.world.clock.now()
            await glass.world.store.enter_recovery(TENANT, "recovery-1", Evidence("file", "behind", "note", 9, 0), now)
            assert await refused(glass.use("cyd", "g1")) is Reason.RECOVERY_MODE
        finally:
            await glass.world.close()

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
    async def test_a_review_that_nobody_made_unblocks_nothing(self, ledger: GlassLedger, forged: str) -> None:
        _, now = await closed_with_an_overdue_review(ledger)
        assert ledger.edit(f"UPDATE {TABLE} SET {forged}") >= 1
        glass = await again(ledger, now)
        try:
            assert await refused(glass.use("cyd", "g2")) is Reason.ROW_MAC_MISMATCH
            assert not glass.world.upstream.alive
            await glass.tend()  # what is left does not stop over it
        finally:
            await glass.world.close()

    async def test_a_lease_whose_badge_was_forged_is_not_shown_as_sound(self, ledger: GlassLedger) -> None:
        lease_id, now = await closed_with_an_overdue_review(ledger)
        assert ledger.edit(f"UPDATE {TABLE} SET person = 'https://idp.test#fay'") >= 1
        glass = await again(ledger, now)
        try:
            assert await refused(glass.desk.get(glass.person("eli"), lease_id)) is Reason.ROW_MAC_MISMATCH
        finally:
            await glass.world.close()

    async def test_the_database_itself_keeps_who_may_not_review(self, ledger: GlassLedger) -> None:
        await closed_with_an_overdue_review(ledger)
        with pytest.raises(ledger.refusals):
            ledger.edit(f"UPDATE {TABLE} SET reviewer = person, reviewed_at = 5, findings = 'fine'")

    async def test_a_word_that_nobody_gave_passes_over_nothing(self, ledger: GlassLedger) -> None:
        _, now = await closed_with_an_overdue_review(ledger)
        glass = await again(ledger, now)
        await glass.override("eli", OverrideKind.REVIEW, "sre", "cyd")
        await glass.world.close()
        forged = ledger.edit(
            "INSERT INTO break_glass_overrides SELECT tenant, 'over-x', kind, subject, person, 'https://idp.test#fay',"
            " by_name, reason, proof, 'forged', request_digest, created_at, expires_at, used_by, mac, mac_key_id"
            " FROM break_glass_overrides"
        )
        assert forged == 1
        glass = await again(ledger, now)
        try:
            with pytest.raises(BrokerError) as caught:
                await glass.use("cyd", "g2")
            assert caught.value.reason is Reason.ROW_MAC_MISMATCH
        finally:
            await glass.world.close()
