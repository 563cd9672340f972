"""What every ReplicaStore keeps of the daemons that work on it. An adapter gives the ``store`` fixture.

One store plays all replicas: each tells its own name. What no test here does is sleep: time is an argument.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from broker.errors import Reason, WrongState
from broker.lease.machine import Event, State
from broker.ports.leases import Attempt, EndCause
from broker.ports.ledger import Ledger
from broker.ports.orphans import OrphanEnd
from broker.ports.replicas import REPLICA_DEAD_AFTER, REPLICA_PAUSE, Heartbeat, Pulse
from tests.stores.contract import grant, records, refused, revoke_all
from tests.stores.contract_orphans import CLAIM, orphan
from tests.stores.make import TENANT, at, intent, new_task

A, B = "replica-a", "replica-b"
DEAD = REPLICA_DEAD_AFTER.total_seconds()
JOBS = frozenset({"export", "retention"})


async def beat(store: Ledger, writer: str, now: float, *, jobs: frozenset[str] = JOBS, digest: str = "") -> Pulse:
    return await store.beat(Heartbeat(writer, TENANT, digest, jobs), at(now))


def plays(store: Any, writer: str) -> None:
    """What is done from now on is this one's work."""
    store._writer._transaction.at_work = writer


async def beats(store: Ledger, writer: str, first: float, last: float, step: float = 1) -> Pulse:
    """Heard all the while."""
    now = first
    while now < last:
        await beat(store, writer, now)
        now += step
    return await beat(store, writer, last)


async def claim(store: Ledger, writer: str, now: float) -> Attempt:
    plays(store, writer)
    (claimed,) = await store.claim_due("bao", at(now), 10, timedelta(seconds=30))
    return claimed


class ReplicaContract:
    @pytest.fixture(autouse=True)
    async def task(self, store: Ledger) -> None:
        await store.start_task(new_task())

    # -- what time it is

    async def test_each_hears_the_highest_time_that_anybody_was_told(self, store: Ledger) -> None:
        """F40: whoever is behind that has missed something."""
        await store.keep_time(at(100))
        assert (await beat(store, A, 5)).seen == at(100)
        await store.keep_time(at(90))
        assert (await beat(store, B, 6)).seen == at(100)

    # -- who lives

    async def test_one_alone_has_nobody_beside_it(self, store: Ledger) -> None:
        assert (await beat(store, A, 0)).others == 0
        assert (await beat(store, A, 1)).others == 0

    async def test_each_hears_of_the_others(self, store: Ledger) -> None:
        await beat(store, A, 0)
        assert (await beat(store, B, 1)).others == 1
        assert (await beat(store, "replica-c", 1)).others == 2
        assert (await beat(store, A, 1)).others == 2

    @pytest.mark.parametrize(("later", "others"), [(DEAD - 0.001, 1), (DEAD, 0)])
    async def test_who_was_not_heard_for_long_is_dead(self, store: Ledger, later: float, others: int) -> None:
        await beat(store, A, 0)
        assert (await beat(store, B, later)).others == others

    async def test_who_was_heard_in_the_future_is_no_sign_of_life(self, store: Ledger) -> None:
        """F39: a clock that was put back does not leave a dead replica living until it has come round again."""
        await beat(store, A, 3600)
        assert (await beat(store, B, 0)).others == 0

    async def test_who_leaves_is_gone_at_once(self, store: Ledger) -> None:
        await beat(store, A, 0)
        await store.leave(A, at(1))
        pulse = await beat(store, B, 1)
        assert (pulse.others, pulse.jobs) == (0, JOBS)

    async def test_a_beat_is_no_event(self, store: Ledger) -> None:
        before = await records(store)
        await beat(store, A, 0)
        await store.leave(A, at(1))
        assert await records(store) == before

    # -- jobs of one at a time

    async def test_a_job_is_one_replicas(self, store: Ledger) -> None:
        assert (await beat(store, A, 0)).jobs == JOBS
        assert (await beat(store, B, 1)).jobs == frozenset()
        assert (await beat(store, A, 2)).jobs == JOBS

    async def test_it_is_kept_for_as_long_as_its_replica_is_heard(self, store: Ledger) -> None:
        for now in range(0, 60, 5):
            assert (await beat(store, A, now)).jobs == JOBS
            assert (await beat(store, B, now)).jobs == frozenset()

    async def test_the_jobs_of_the_dead_are_taken_over_and_not_given_back(self, store: Ledger) -> None:
        """F18: a leader that is stopped for longer than its time finds that another does its jobs."""
        await beat(store, A, 0)
        assert (await beat(store, B, DEAD - 0.001)).jobs == frozenset()
        assert (await beat(store, B, DEAD)).jobs == JOBS
        assert (await beat(store, A, DEAD)).jobs == frozenset()

    async def test_a_job_that_nobody_wants_is_nobodys(self, store: Ledger) -> None:
        assert (await beat(store, A, 0, jobs=frozenset({"export"}))).jobs == {"export"}
        assert (await beat(store, B, 0)).jobs == {"retention"}

    async def test_jobs_are_a_tenants(self, store: Ledger) -> None:
        await beat(store, A, 0)
        other = await store.beat(Heartbeat(B, "another", "", JOBS), at(0))
        assert (other.jobs, other.others) == (JOBS, 1)

    async def test_a_job_taken_in_the_future_is_not_out_of_reach(self, store: Ledger) -> None:
        """F39: a clock that was put back does not leave a job undone until it has come round again."""
        await beat(store, A, 3600)
        assert (await beat(store, B, 0)).jobs == JOBS

    # -- the deploy set in force

    async def test_without_any_set_none_is_in_force(self, store: Ledger) -> None:
        assert (await beat(store, A, 0)).in_force is None

    async def test_a_new_set_is_in_force_and_everybody_hears_of_it(self, store: Ledger) -> None:
        made = await store.put_in_force(Heartbeat(A, TENANT, "one"), at(1), deliberate=False)
        assert (made.digest, made.since) == ("one", at(1))
        assert (await beat(store, B, 2)).in_force == made
        newer = await store.put_in_force(Heartbeat(B, TENANT, "two"), at(3), deliberate=False)
        assert newer.digest == "two"
        assert newer.place > made.place
        assert (await beat(store, A, 4, digest="one")).in_force == newer

    async def test_who_is_behind_hears_whether_others_have_the_set_in_force(self, store: Ledger) -> None:
        await store.put_in_force(Heartbeat(B, TENANT, "two"), at(0), deliberate=False)
        await beat(store, B, 0, digest="two")
        await beat(store, "replica-c", 0, digest="one")
        await store.beat(Heartbeat("replica-d", "another tenant", "two"), at(0))
        assert (await beat(store, A, 1, digest="one")).ahead == 1
        assert (await beat(store, "replica-c", 1, digest="two")).ahead == 0
        assert (await beat(store, A, 2, digest="one")).ahead == 2
        assert (await beat(store, A, DEAD + 0.5, digest="one")).ahead == 1
        assert (await beat(store, A, DEAD + 1, digest="one")).ahead == 0

    async def test_the_same_set_again_changes_nothing(self, store: Ledger) -> None:
        made = await store.put_in_force(Heartbeat(A, TENANT, "one"), at(1), deliberate=False)
        assert await store.put_in_force(Heartbeat(B, TENANT, "one"), at(9), deliberate=True) == made

    async def test_an_old_set_stays_out_while_others_live(self, store: Ledger) -> None:
        """F28: a replica that starts from an old copy does not put the others' newer set out of force."""
        await self._two_sets(store)
        await beat(store, B, 3, digest="two")
        assert (await store.put_in_force(Heartbeat(A, TENANT, "one"), at(4), deliberate=False)).digest == "two"
        heard = (await beat(store, B, 5)).in_force
        assert heard is not None
        assert heard.digest == "two"

    async def test_an_old_set_comes_back_where_somebody_wants_it(self, store: Ledger) -> None:
        await self._two_sets(store)
        await beat(store, B, 3, digest="two")
        assert (await store.put_in_force(Heartbeat(A, TENANT, "one"), at(4), deliberate=True)).digest == "one"
        # And then the other one is the old one.
        await beat(store, A, 5)
        assert (await store.put_in_force(Heartbeat(B, TENANT, "two"), at(6), deliberate=False)).digest == "one"

    async def test_an_old_set_comes_back_where_nobody_else_lives(self, store: Ledger) -> None:
        await self._two_sets(store)
        await beat(store, B, 3, digest="two")
        back = await store.put_in_force(Heartbeat(A, TENANT, "one"), at(3 + DEAD), deliberate=False)
        assert back.digest == "one"

    async def test_an_old_set_stays_out_where_it_is_put_in_force_late(self, store: Ledger) -> None:
        """F18, F28: by one that was stopped since it took the time, when nobody else lived."""
        await self._two_sets(store)
        await beat(store, B, 60, digest="two")
        late = await store.put_in_force(Heartbeat(A, TENANT, "one"), at(3 + DEAD), deliberate=False)
        assert late.digest == "two"

    async def test_sets_are_a_tenants(self, store: Ledger) -> None:
        await store.put_in_force(Heartbeat(A, TENANT, "one"), at(1), deliberate=False)
        assert (await store.beat(Heartbeat(B, "another"), at(1))).in_force is None

    async def _two_sets(self, store: Ledger) -> None:
        await store.put_in_force(Heartbeat(A, TENANT, "one"), at(1), deliberate=False)
        await store.put_in_force(Heartbeat(B, TENANT, "two"), at(2), deliberate=False)

    # -- recovery at boot

    async def test_a_replica_that_starts_leaves_the_others_what_they_are_issuing(self, store: Ledger) -> None:
        """F2, F42: a boot beside living replicas takes nothing from them."""
        opened = await store.open_intent(intent("1", now=1))
        await beat(store, A, 1)
        assert await store.recover(at(2)) == 0
        attempt = opened.attempt
        lease = await store.activate(TENANT, attempt.id, attempt.epoch, attempt.expires_at, at(40), {}, at(3))
        assert lease.state is State.ACTIVE

    async def test_but_not_what_is_past_its_deadline(self, store: Ledger) -> None:
        """F2, F42: what a dead replica was issuing is swept by whoever looks, once its upstream call must be over."""
        opened = await store.open_intent(intent("1", now=1))
        await grant(store, "2")
        await beat(store, A, 11)
        assert await store.recover(opened.attempt.issue_deadline) == 1
        (left,) = await store.living_attempts(TENANT, opened.lease_id)
        assert (left.state, left.cause) == (State.REVOKING, EndCause.OUTCOME_UNKNOWN)

    async def test_alone_it_takes_back_all_that_was_being_issued(self, store: Ledger) -> None:
        """F18: and whoever lives after all, and was only not heard, cannot activate what was taken from it."""
        opened = await store.open_intent(intent("1", now=0.5))
        await beat(store, A, 0)
        assert await store.recover(at(DEAD - 0.001)) == 0
        assert await store.recover(at(DEAD)) == 1
        attempt = opened.attempt
        late = store.activate(TENANT, attempt.id, attempt.epoch, attempt.expires_at, at(40), {}, at(DEAD))
        await refused(store, late, WrongState, Reason.LEASE_ENDED)

    async def test_a_start_that_comes_late_takes_nothing_from_who_was_heard_since(self, store: Ledger) -> None:
        """F18: stopped in the middle of its start, it goes on when others have long begun."""
        opened = await store.open_intent(intent("1", now=59))
        await beat(store, A, 59)
        assert await store.recover(at(1)) == 0
        attempt = opened.attempt
        lease = await store.activate(TENANT, attempt.id, attempt.epoch, attempt.expires_at, at(90), {}, at(60))
        assert lease.state is State.ACTIVE

    # -- what the dead had in hand

    async def test_what_a_dead_one_had_claimed_is_due_at_once(self, store: Ledger) -> None:
        """F18: it does not wait until the claim runs out, and whoever lives after all changes nothing of it."""
        await self._ended(store)
        await beat(store, A, 1)
        claimed = await claim(store, A, 1)
        assert (await beats(store, B, 1, DEAD + 0.999)).dead == 0
        assert await store.inherit(B, at(DEAD + 0.999)) == 0
        assert (await beat(store, B, 1 + DEAD)).dead == 1
        assert await store.inherit(B, at(1 + DEAD)) == 1
        plays(store, B)
        (taken,) = await revoke_all(store, now=1 + DEAD)
        assert (taken.id, taken.epoch > claimed.epoch) == (claimed.id, True)
        late = store.record_revocation(claimed, Event.REVOKE_CONFIRMED, at(12), at(12), "", False)
        assert await late is False
        assert (await beat(store, B, 2 + DEAD)).dead == 0

    async def test_what_a_dead_one_was_issuing_is_swept_at_once(self, store: Ledger) -> None:
        """F2, F18."""
        plays(store, A)
        opened = await store.open_intent(intent("1", now=1, issue_deadline=at(50)))
        await beat(store, A, 1)
        await beats(store, B, 1, 1 + DEAD)
        assert await store.inherit(B, at(1 + DEAD)) == 1
        (left,) = await store.living_attempts(TENANT, opened.lease_id)
        assert (left.state, left.cause) == (State.REVOKING, EndCause.OUTCOME_UNKNOWN)
        attempt = opened.attempt
        late = store.activate(TENANT, attempt.id, attempt.epoch, attempt.expires_at, at(40), {}, at(13))
        await refused(store, late, WrongState, Reason.LEASE_ENDED)

    async def test_a_living_one_keeps_what_it_has_in_hand(self, store: Ledger) -> None:
        """I10."""
        await self._ended(store)
        plays(store, A)
        opened = await store.open_intent(intent("2", now=1, issue_deadline=at(50)))
        claimed = await claim(store, A, 1)
        for now in range(1, 30):
            await beat(store, A, now)
            assert (await beat(store, B, now)).dead == 0
            assert await store.inherit(B, at(now)) == 0
        attempt = opened.attempt
        await store.activate(TENANT, attempt.id, attempt.epoch, attempt.expires_at, at(40), {}, at(29))
        assert await store.record_revocation(claimed, Event.REVOKE_CONFIRMED, at(29), at(29), "", False)

    @pytest.mark.parametrize("gap", [REPLICA_PAUSE.total_seconds() + 0.001, 3600, -3600])
    async def test_who_was_away_itself_takes_nobody_for_dead(self, store: Ledger, gap: float) -> None:
        """I10, F39: a database that was away, or a clock that was set, leaves all of them unheard, and alive."""
        await self._ended(store)
        await beat(store, A, 0)
        await claim(store, A, 1)
        await beats(store, B, 0, DEAD - 1)
        now = DEAD - 1 + gap
        assert (await beat(store, B, now)).dead == 0
        assert (await beats(store, B, now, now + DEAD - 0.001)).dead == 0
        assert await store.inherit(B, at(now + DEAD - 0.001)) == 0

    async def test_and_does_after_it_was_heard_for_long_again(self, store: Ledger) -> None:
        await self._ended(store)
        await beat(store, A, 0)
        await claim(store, A, 1)
        await beats(store, B, 20, 20 + DEAD)
        assert await store.inherit(B, at(20 + DEAD)) == 1

    async def test_who_knows_it_and_is_not_heard_any_more_takes_nothing(self, store: Ledger) -> None:
        """It was stopped between the two."""
        await self._ended(store)
        await beat(store, A, 0)
        await claim(store, A, 1)
        assert (await beats(store, B, 0, DEAD)).dead == 1
        assert await store.inherit(B, at(DEAD + REPLICA_PAUSE.total_seconds() + 0.001)) == 0

    async def test_what_waits_for_its_next_try_is_nobodys(self, store: Ledger) -> None:
        """A death does not hurry what an upstream has refused."""
        await self._ended(store)
        await beat(store, A, 1)
        claimed = await claim(store, A, 1)
        assert await store.record_revocation(claimed, None, at(2), at(100), "not now", False)
        await beats(store, B, 1, 1 + DEAD)
        assert await store.inherit(B, at(1 + DEAD)) == 0
        assert await store.next_due("bao") == at(100)

    async def test_what_is_usable_is_nobodys(self, store: Ledger) -> None:
        plays(store, A)
        await beat(store, A, 1)
        await grant(store)
        await beats(store, B, 1, 1 + DEAD)
        assert await store.inherit(B, at(1 + DEAD)) == 0

    async def test_who_leaves_leaves_nothing_in_hand(self, store: Ledger) -> None:
        """F18: SIGTERM while an upstream hangs."""
        await self._ended(store)
        await beat(store, A, 1)
        await beat(store, B, 1)
        claimed = await claim(store, A, 1)
        await store.leave(A, at(2))
        assert (await claim(store, B, 2)).epoch > claimed.epoch

    async def test_what_a_dead_one_had_found_unknown_and_claimed_is_due_at_once(self, store: Ledger) -> None:
        """F18: under a higher epoch, and what the dead one says of it afterwards changes nothing."""
        plays(store, A)
        await beat(store, A, 1)
        await store.add_orphans([orphan("1", found=1), orphan("2", found=1)])
        one, two = await store.claim_orphans("bao", at(1), 10, CLAIM)
        assert await store.record_orphan(two, None, at(2), at(100), "not now", False)  # its next try is nobody's
        await beats(store, B, 1, DEAD + 0.999)
        assert await store.inherit(B, at(DEAD + 0.999)) == 0
        assert (await beat(store, B, 1 + DEAD)).dead == 1
        assert await store.inherit(B, at(1 + DEAD)) == 1
        plays(store, B)
        (taken,) = await store.claim_orphans("bao", at(1 + DEAD), 10, CLAIM)
        assert (taken.id, taken.epoch > one.epoch) == (one.id, True)
        assert not await store.record_orphan(one, OrphanEnd.REVOKED, at(12), at(12), "", False)
        assert await store.record_orphan(taken, OrphanEnd.REVOKED, at(12), at(12), "", False)
        assert await store.inherit(B, at(1 + DEAD)) == 0
        assert (await beat(store, B, 2 + DEAD)).dead == 0

    async def test_a_living_one_keeps_what_it_has_claimed_of_it(self, store: Ledger) -> None:
        """I10."""
        plays(store, A)
        await store.add_orphans([orphan("1", found=1)])
        (claimed,) = await store.claim_orphans("bao", at(1), 10, CLAIM)
        for now in range(1, 30):
            await beat(store, A, now)
            await beat(store, B, now)
            assert await store.inherit(B, at(now)) == 0
        assert await store.record_orphan(claimed, OrphanEnd.REVOKED, at(29), at(29), "", False)

    async def test_who_leaves_leaves_nothing_of_it_in_hand(self, store: Ledger) -> None:
        """F18."""
        plays(store, A)
        await store.add_orphans([orphan("1", found=1)])
        (claimed,) = await store.claim_orphans("bao", at(1), 10, CLAIM)
        await store.leave(A, at(2))
        (taken,) = await store.claim_orphans("bao", at(2), 10, CLAIM)
        assert taken.epoch > claimed.epoch

    async def test_one_that_comes_back_is_not_dead_for_what_it_was(self, store: Ledger) -> None:
        await beat(store, A, 1)
        assert (await beats(store, B, 1, 1 + DEAD)).dead == 1
        assert (await beats(store, "replica-c", 1, 1 + DEAD)).dead == 1
        assert await store.inherit(B, at(1 + DEAD)) == 0
        assert (await beat(store, "replica-c", 1 + DEAD)).dead == 0
        await beat(store, A, 2 + DEAD)
        pulse = await beat(store, B, 2 + DEAD)
        assert (pulse.others, pulse.dead) == (2, 0)

    async def _ended(self, store: Ledger) -> None:
        """An attempt whose revocation is owed."""
        lease = await grant(store, now=-5)
        await store.end_attempt(TENANT, lease.attempt_id, Event.END, EndCause.REVOKED_BY_OPERATOR, at(0))
