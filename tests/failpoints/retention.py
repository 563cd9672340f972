"""What is over goes, what lives stays: texts, tasks that are long over, a lease that two people forget, the export."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

from broker.errors import Denied
from broker.lease.machine import State
from broker.ports.leases import EndCause, Forgetting, Selector
from broker.ports.trail import AuditSink
from broker.stores.audit_file import AuditFile
from tests.failpoints.errand import DAY, Daemon, Errand
from tests.issuance.world import ALICE, TENANT

_ADA, _BEA = "https://idp.test#ada", "https://idp.test#bea"


class Retention(Errand):
    """Beside an old task: a lease that nobody can end, and one that lives."""

    kept: ClassVar[timedelta | None] = DAY
    differing: ClassVar[Mapping[str, int]] = {"forget_lease": 2, "audit_exported": 2}

    async def prepare(self) -> None:
        """See Errand."""
        world = self.world
        old, _ = await self._granted("old")
        await world.tasks.complete(world.caller(), old, timedelta(0))
        self.stuck_task, self.stuck = await self._granted("stuck")
        await world.settle(lambda: self._is_over(old))
        await self._sticks()
        world.later(3 * DAY)
        self.living_task, self.living = await self._granted("living")
        self.old = old

    async def _granted(self, name: str) -> tuple[str, str]:
        world = self.world
        task = await world.task(name=f"task-{name}")
        grant = await world.grant(task, name=f"request-{name}", prompt=f"for {name}", ttl=timedelta(minutes=15))
        assert grant.lease is not None
        await world.leases.confirm(world.caller(), grant.lease.id, grant.lease.attempt_id)
        return task.id, grant.lease.id

    async def _is_over(self, task: str) -> bool:
        return all(each.state is State.REVOKED for each in await self.world.store.task_leases(TENANT, task))

    async def _sticks(self) -> None:
        """Its upstream does not answer for ever."""
        store, now = self.world.store, self.world.clock.now()
        ended = Selector(TENANT, task_id=self.stuck_task)
        await store.end_leases(ended, EndCause.RELEASED, str(ALICE.spiffe_id), now)
        (attempt,) = await store.claim_due("fake", now, 10, DAY)
        assert await store.record_revocation(attempt, None, now, now + 100 * DAY, "no such host", True)

    def sink(self) -> AuditSink | None:
        """See Errand."""
        return AuditFile(self.directory / "audit.jsonl")

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        await daemon.upkeep.export()
        await daemon.upkeep.erase_texts()
        for by in (_ADA, _BEA):
            with contextlib.suppress(Denied):  # said already, and the answer was lost
                await self.once(by, self._forget(daemon, by))
            self._done.add(by)
        await daemon.upkeep.delete_ended()
        await daemon.upkeep.export()

    async def _forget(self, daemon: Daemon, by: str) -> None:
        said = Forgetting(TENANT, self.stuck, by, "the cluster was torn down", self.world.clock.now())
        await daemon.store.forget_lease(said)

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        return not self.ask("SELECT 1 FROM tasks WHERE id = ?", self.old)

    async def check(self) -> None:
        """See Errand."""
        assert {row[0] for row in self.ask("SELECT id FROM tasks")} == {self.stuck_task, self.living_task}
        assert {row[0] for row in self.ask("SELECT id FROM leases")} == {self.stuck, self.living}
        states = dict(self.ask("SELECT lease_id, state FROM attempts"))
        assert states == {self.stuck: State.EXPIRED, self.living: State.ACTIVE}, states
        assert {row[0] for row in self.ask("SELECT task_id FROM task_text_keys")} == {self.living_task}
        assert sum(int(str(each.data["tasks"])) for each in self.news("retention.deleted")) == 1
        assert sum(int(str(each.data["tasks"])) for each in self.news("texts.erased")) == 2
        begun, forgotten = self.news("lease.forget_begun"), self.news("lease.forgotten")
        assert [each.actor for each in (*begun, *forgotten)] == [_ADA, _BEA]
        assert len(self.news("lease")) == 2, "of no other lease is anything told"
        lines = (self.directory / "audit.jsonl").read_bytes().splitlines()
        assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1)), "each once, in order"
        assert lines == [row[0] for row in self.ask("SELECT body FROM audit ORDER BY seq")][: len(lines)]
        ((exported,),) = self.ask("SELECT upto FROM audit_export")
        assert exported <= len(lines), "the export was believed to have what it has not"
