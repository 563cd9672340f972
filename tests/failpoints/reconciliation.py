"""An inventory, what it finds, and its end: nothing is adopted, what is somebody's is left alone, the rest is ended.

What lives upstream is a lease's, an ended lease's whose revocation was a lie, one that no ledger knows, and another
broker's; and of one lease nothing lives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar

from broker.lease.machine import State
from broker.lease.mark import Mark
from tests.connectors.fake import RevokeMishap
from tests.failpoints.errand import Daemon, Errand
from tests.issuance.world import MARK

_LIFE = timedelta(minutes=15)
_OLD = timedelta(minutes=10)  # no create in flight


class Reconciliation(Errand):
    """By itself, and because a person asks."""

    differing: ClassVar[Mapping[str, int]] = {"append": 3}  # missing; allowed; reconciled

    async def prepare(self) -> None:
        """See Errand."""
        world, upstream = self.world, self.world.upstream
        self.living, self.missing = await self._confirmed("living"), await self._confirmed("missing")
        self.ended = await self._confirmed("ended")
        upstream.revoke_mishaps.append(RevokeMishap.LIES)
        ending = await world.store.get_task("test", self.tasks["ended"])
        await world.tasks.complete(world.caller(), ending.id, timedelta(0))
        await world.settle(self._is_over)
        del upstream.alive[self.missing]
        self.unknown, self.foreign = MARK.attempt("lost"), Mark("theirone").attempt("x")
        for planted in (self.unknown, self.foreign):
            upstream.plant(planted, world.clock.now() + 2 * _LIFE, born=world.clock.now() - _OLD)
        self.before = self._rows()
        self.asked: list[str] = []
        self._revoke, upstream.revoke = upstream.revoke, self._revoked  # type: ignore[method-assign]
        self.starts = 0

    async def _confirmed(self, name: str) -> str:
        world = self.world
        task = await world.task(name=f"task-{name}")
        self.tasks = {**getattr(self, "tasks", {}), name: task.id}
        grant = await world.grant(task, name=f"request-{name}", ttl=_LIFE)
        assert grant.lease is not None
        await world.leases.confirm(world.caller(), grant.lease.id, grant.lease.attempt_id)
        return grant.lease.attempt_id

    async def _is_over(self) -> bool:
        (lease,) = await self.world.store.task_leases("test", self.tasks["ended"])
        return lease.state is State.REVOKED

    def _rows(self) -> list[Any]:
        return self.ask("SELECT id, state, due_at, epoch FROM attempts ORDER BY id")

    async def _revoked(self, handle: Any, context: Any) -> Any:
        attempt = str(handle["attempt"])
        self.asked.append(attempt)
        known = self.ask("SELECT 1 FROM upstream_orphans WHERE attempt_id = ? AND due_at IS NOT NULL", attempt)
        assert known, f"the upstream was asked to end {attempt}, and no row says why"
        return await self._revoke(handle, context)

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""
        self.starts += 1

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        await daemon.reconciler.tick()
        await daemon.upkeep.tick()
        await self.settled(daemon)
        (done,) = await daemon.reconciler.run(["fake"], "https://idp.test#ada", sweep=1)
        if done.problem:
            raise OSError(done.problem)
        await self.settled(daemon)

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        return set(self.world.upstream.alive) == {self.living, self.foreign} and not self.ask(
            "SELECT 1 FROM upstream_orphans WHERE due_at IS NOT NULL"
        )

    async def check(self) -> None:
        """See Errand."""
        assert set(self.world.upstream.alive) == {self.living, self.foreign}
        assert set(self.asked) == {self.unknown, self.ended}
        assert self._rows() == self.before, "it adopts nothing, and ends no lease"
        assert not self.news("lease", "task")
        for type_ in ("upstream.unknown_found", "upstream.unknown_ended"):
            told = Counter(each.data["attempt_id"] for each in self.news(type_))
            assert told == {self.unknown: 1, self.ended: 1}, f"{type_}: {told}"
        gone = [each.attempt_id for each in self.news("upstream.missing")]
        assert set(gone) == {self.missing}
        assert len(gone) <= self.starts + self.faulty, "told once by each process"
        allowed, reconciled = self.news("upstream.sweep_allowed"), self.news("upstream.reconciled")
        assert {each.actor for each in (*allowed, *reconciled)} == {"https://idp.test#ada"}
        assert reconciled
