"""The ledger, in whatever database: :mod:`broker.stores.sqlite` opens one in a file.

Puts together the writer (:mod:`broker.stores.group_commit`) and the readers; what each operation does is in the
``*_ops`` modules and in :mod:`broker.stores.reads`. The contract is :class:`broker.ports.lease_store.LeaseStore`;
plans and delegations are in :mod:`broker.stores.ledger_pipelines`, break-glass in
:mod:`broker.stores.ledger_break_glass`, checkpoints and recovery in :mod:`broker.stores.ledger_trail`, what people
see of everybody's in :mod:`broker.stores.ledger_views`, what is upstream and not in the ledger in
:mod:`broker.stores.ledger_orphans`, accounts of pools in :mod:`broker.stores.ledger_allocations`, other daemons in
:mod:`broker.stores.ledger_replicas`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from broker.audit.claimed import Claimed
from broker.audit.event import AuditEvent
from broker.audit.report import TaskReport
from broker.errors import BrokerError
from broker.identity.behalf import Human
from broker.lease.machine import Event, State
from broker.policy.quotas import Per
from broker.ports.access_requests import FiledRequest, Filing, RequestEventRecord, RequestFilter, Vote
from broker.ports.access_reviews import AccessReviewSigned, NewAccessReview
from broker.ports.connectors import Handle, Noted
from broker.ports.deploys import AcceptedDeploy
from broker.ports.figures import ExportBacklog, LedgerFigures
from broker.ports.intents import Holdings, Intent, Opened
from broker.ports.keys import KeyRing
from broker.ports.leases import (
    Attempt,
    EndCause,
    Ended,
    Forgetting,
    Forgotten,
    Lease,
    LeaseEvent,
    LeaseFilter,
    NamedIds,
    Selector,
    Tried,
)
from broker.ports.suspensions import Lifting, Members, NewSuspension, StillAlive
from broker.ports.tasks import NewTask, Task, TaskState
from broker.scope.canonical import JsonValue
from broker.stores import (
    access_ops,
    access_review_ops,
    deploy_ops,
    end_ops,
    erasure,
    foreign,
    forget_ops,
    grant_ops,
    holding_ops,
    inherit_ops,
    proof_ops,
    quota_ops,
    read_ahead,
    reads,
    replica_ops,
    retention_ops,
    review_ops,
    revoke_ops,
    suspension_ops,
    task_ops,
    text_ops,
)
from broker.stores.database import Writing
from broker.stores.group_commit import GroupCommit
from broker.stores.ledger_allocations import LedgerAllocations
from broker.stores.ledger_break_glass import LedgerBreakGlass
from broker.stores.ledger_canaries import LedgerCanaries
from broker.stores.ledger_orphans import LedgerOrphans
from broker.stores.ledger_pipelines import LedgerPipelines
from broker.stores.ledger_replicas import LedgerReplicas
from broker.stores.ledger_reviews import LedgerReviews
from broker.stores.ledger_trail import LedgerTrail
from broker.stores.ledger_views import LedgerViews
from broker.stores.read_ahead import AttemptAhead
from broker.stores.reading import Reading
from broker.stores.seal import RowSeal
from broker.stores.times import to_ms
from broker.stores.trail import Head, Trail, read_head
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Subject, Suspension

# No limit, to any database.
_ALL = 2**63 - 1


class LedgerStore(
    LedgerPipelines,
    LedgerReviews,
    LedgerBreakGlass,
    LedgerTrail,
    LedgerViews,
    LedgerOrphans,
    LedgerCanaries,
    LedgerAllocations,
    LedgerReplicas,
):
    """A :class:`broker.ports.ledger.Ledger`, ended by :meth:`close`. How it is opened is its database's matter."""

    def __init__(self, writing: Writing, keys: KeyRing, writer: str, *, keeps_texts: bool) -> None:
        """Raises Tampered (AUDIT_CHAIN_BROKEN) where the head of the audit chain is not ours."""
        self._writing_end = writing
        self._name = writer
        seal = RowSeal(keys)
        trail = Trail(keys, writer, _head(writing, seal))
        self._head = trail.committed_seq
        self._moved = asyncio.Event()
        self._closed = False
        self._tampered: frozenset[str] = frozenset()  # suspensions whose alarm is in the trail
        # What the next tick looks at of each tenant's suspensions. The first one looks at all.
        self._looks: dict[str, suspension_ops.Look] = {}
        self._living = review_ops.LivingWalk()
        self._readers = self._reading(seal)
        transaction = Transaction(writing.connection, writing.dialect, seal, trail, keeps_texts=keeps_texts)
        transaction.at_work = writer if self.shared else None
        self._writer = self._writing(writing, transaction, trail)

    # What has threads is made here, for whoever simulates time.

    def _reading(self, seal: RowSeal) -> Reading:
        raise NotImplementedError

    def _writing(self, writing: Writing, transaction: Transaction, trail: Trail) -> GroupCommit:
        return GroupCommit(writing, transaction, trail, self._committed)

    def _committed(self, head: int) -> None:
        """On the event loop, after each batch: wake whoever waits for the audit head to move."""
        if head != self._head:
            self._head = head
            self._moved.set()
            self._moved = asyncio.Event()

    async def lost(self) -> BrokerError:
        """Returns when the database is found without what was committed to it, or under a head that is not ours; why.

        Or under a schema that is not for this release. Nothing is written from then on; only a start, which asks the
        witnesses, can go on with such a ledger.
        """
        return await asyncio.shield(self._writer.lost)

    @property
    def unanswered(self) -> timedelta:
        """For how long what is being written has waited for the database; zero where nothing does."""
        return timedelta(seconds=self._writer.unanswered)

    @property
    def failing(self) -> tuple[timedelta, str]:
        """For how long nothing could be written any more, and why; zero where the last write was committed."""
        seconds, why = self._writer.failing
        return timedelta(seconds=seconds), why

    async def displaced(self) -> str:
        """What of the ledger is not where it was opened, so that what is committed goes with this process; empty."""
        return ""

    async def close(self) -> None:
        """See LeaseStore.close. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await self._readers.close()
        self._moved.set()
        self._writing_end.close()
        self._let_go()

    def _let_go(self) -> None:
        """What a kind of database holds beside its connections."""

    # -- tasks

    async def start_task(self, new: NewTask) -> Task:
        """See LeaseStore.start_task."""
        return await self._writer.submit(lambda tx: task_ops.start_task(tx, new))

    async def get_task(self, tenant: str, task_id: str) -> Task:
        """See LeaseStore.get_task."""
        return await self._readers.point(lambda view: reads.get_task(view, tenant, task_id))

    async def end_task(
        self,
        tenant: str,
        task_id: str,
        state: TaskState,
        cause: EndCause,
        actor: str,
        now: datetime,
        report: TaskReport | None = None,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> Task:
        """See LeaseStore.end_task."""
        return await self._writer.submit(
            lambda tx: task_ops.end_task(tx, tenant, task_id, state, cause, actor, now, report, audit)
        )

    # -- agents' whole texts

    async def claimed_texts(self, tenant: str, task_id: str) -> Sequence[Claimed]:
        """See LeaseStore.claimed_texts."""
        return await self._readers.scan(lambda view: text_ops.read(view, tenant, task_id))

    async def erase_texts(self, tenant: str, task_id: str, actor: str, reason: str, now: datetime) -> bool:
        """See LeaseStore.erase_texts."""
        return await self._writer.submit(lambda tx: erasure.erase(tx, tenant, task_id, actor, reason, to_ms(now)))

    async def erase_texts_before(self, before: datetime, limit: int, now: datetime) -> int:
        """See LeaseStore.erase_texts_before."""
        return await self._writer.submit(lambda tx: erasure.erase_older(tx, to_ms(before), limit, to_ms(now)))

    # -- forgetting

    async def forget_lease(self, said: Forgetting) -> Forgotten:
        """See LeaseStore.forget_lease."""
        return await self._writer.submit(lambda tx: forget_ops.forget(tx, said))

    # -- retention

    async def delete_ended(self, before: datetime, now: datetime) -> int:
        """See LeaseStore.delete_ended."""
        total = 0
        after: int | None = 0
        while after is not None:
            found = await self._readers.scan(partial(retention_ops.find, before=before, after=after))
            tasks, after = found
            while tasks:
                done = await self._writer.submit(partial(retention_ops.delete, tasks=tasks, before=before, now=now))
                total, tasks = total + done.tasks, tasks[done.dealt_with :]
        await self._writer.submit(lambda tx: tx.run("drop_ended_orphans", {"before": to_ms(before)}))
        return total

    # -- access reviews

    async def sign_off_access_review(self, new: NewAccessReview) -> AccessReviewSigned:
        """See LeaseStore.sign_off_access_review."""
        return await self._writer.submit(lambda tx: access_review_ops.sign_off(tx, new))

    async def last_access_review(self, tenant: str) -> datetime | None:
        """See LeaseStore.last_access_review."""
        return await self._readers.scan(lambda view: access_review_ops.last(view, tenant))

    async def hold_task(self, tenant: str, task_id: str, grace: timedelta, until: datetime, now: datetime) -> Task:
        """See LeaseStore.hold_task."""
        return await self._writer.submit(lambda tx: task_ops.hold_task(tx, tenant, task_id, grace, until, now))

    async def end_due_tasks(self, now: datetime, limit: int) -> int:
        """See LeaseStore.end_due_tasks. Costs a look at an index where nothing is due."""
        if not await self._readers.point(lambda view: reads.any_task_due(view, now)):
            return 0
        return await self._writer.submit(lambda tx: task_ops.end_due_tasks(tx, now, limit))

    # -- asking people

    async def open_access_request(self, filing: Filing) -> FiledRequest:
        """See LeaseStore.open_access_request."""
        return await self._writer.submit(lambda tx: access_ops.open_access_request(tx, filing))

    async def check_access_request(self, filing: Filing) -> None:
        """See LeaseStore.check_access_request."""
        await self._readers.scan(lambda view: access_ops.decide(view, filing))

    async def vote(
        self,
        tenant: str,
        access_request_id: str,
        digest: str,
        vote: Vote,
        satisfied: Callable[[FiledRequest], bool],
    ) -> FiledRequest:
        """See LeaseStore.vote."""
        return await self._writer.submit(
            lambda tx: access_ops.vote(tx, tenant, access_request_id, digest, vote, satisfied)
        )

    async def withdraw_access_request(
        self, tenant: str, access_request_id: str, holder: str, now: datetime
    ) -> FiledRequest:
        """See LeaseStore.withdraw_access_request."""
        return await self._writer.submit(lambda tx: access_ops.withdraw(tx, tenant, access_request_id, holder, now))

    async def lapse_access_requests(self, now: datetime, limit: int) -> int:
        """See LeaseStore.lapse_access_requests. Costs a look at an index where nothing is due."""
        if not await self._readers.point(lambda view: access_ops.any_due(view, now)):
            return 0
        return await self._writer.submit(lambda tx: access_ops.lapse_due(tx, now, limit))

    async def get_access_request(self, tenant: str, access_request_id: str, holder: str = "") -> FiledRequest:
        """See LeaseStore.get_access_request."""
        return await self._readers.point(lambda view: access_ops.get(view, tenant, access_request_id, holder))

    async def list_access_requests(self, filter_: RequestFilter, after: str, limit: int) -> Sequence[FiledRequest]:
        """See LeaseStore.list_access_requests."""
        return await self._readers.scan(lambda view: access_ops.page(view, filter_, after, limit))

    async def access_request_events(
        self, tenant: str, holder: str, after: int, limit: int
    ) -> Sequence[RequestEventRecord]:
        """See LeaseStore.access_request_events."""
        return await self._readers.scan(lambda view: access_ops.events(view, tenant, holder, after, limit))

    async def last_approved_plan(self, tenant: str, principal: str, template: str) -> tuple[str, str]:
        """See LeaseStore.last_approved_plan."""
        return await self._readers.point(lambda view: access_ops.last_approved_plan(view, tenant, principal, template))

    async def pending_access_requests(self, tenant: str, holder: str) -> int:
        """See LeaseStore.pending_access_requests."""
        return await self._readers.point(lambda view: access_ops.pending(view, tenant, holder))

    # -- issuing

    async def open_intent(self, intent: Intent) -> Opened:
        """See LeaseStore.open_intent."""
        return await self._writer.submit(lambda tx: grant_ops.open_intent(tx, intent), read_ahead.of_intent(intent))

    async def index_quotas(self, kinds: frozenset[Per]) -> None:
        """See LeaseStore.index_quotas."""
        await self._writer.submit(lambda tx: quota_ops.index(tx, kinds))

    async def check_intent(self, intent: Intent) -> None:
        """See LeaseStore.check_intent."""
        await self._readers.point(lambda view: grant_ops.decide(view, intent))

    async def holdings(self, tenant: str, holder: str, request_id: str) -> Holdings:
        """See LeaseStore.holdings. Bounded by the quota of living leases."""
        return await self._readers.point(lambda view: holding_ops.holdings(view, tenant, holder, request_id))

    async def checkpoint(
        self, tenant: str, attempt_id: str, epoch: int, handle: Handle, upstream: str | None, now: datetime
    ) -> None:
        """See LeaseStore.checkpoint."""
        await self._writer.submit(
            lambda tx: grant_ops.checkpoint(tx, tenant, attempt_id, epoch, handle, upstream),
            AttemptAhead(tenant, attempt_id),
        )

    async def activate(
        self,
        tenant: str,
        attempt_id: str,
        epoch: int,
        expires_at: datetime,
        confirm_by: datetime,
        observed: Mapping[str, JsonValue],
        now: datetime,
        noted: Noted | None = None,
    ) -> Lease:
        """See LeaseStore.activate."""
        return await self._writer.submit(
            lambda tx: grant_ops.activate(tx, tenant, attempt_id, epoch, expires_at, confirm_by, observed, now, noted),
            AttemptAhead(tenant, attempt_id),
        )

    async def confirm_delivery(
        self, tenant: str, lease_id: str, holder: str, attempt_id: str, now: datetime, person: str = ""
    ) -> Lease:
        """See LeaseStore.confirm_delivery."""
        return await self._writer.submit(
            lambda tx: grant_ops.confirm_delivery(tx, tenant, lease_id, holder, attempt_id, now, person)
        )

    # -- ending

    async def end_attempt(
        self, tenant: str, attempt_id: str, event: Event, cause: EndCause, now: datetime, detail: str = ""
    ) -> State:
        """See LeaseStore.end_attempt."""
        return await self._writer.submit(
            lambda tx: end_ops.end_attempt(tx, tenant, attempt_id, event, cause, now, detail)
        )

    async def end_leases(
        self,
        selector: Selector,
        cause: EndCause,
        actor: str,
        now: datetime,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> int:
        """See LeaseStore.end_leases."""
        return await self._writer.submit(lambda tx: end_ops.end_leases(tx, selector, cause, actor, now, audit))

    async def end_together(self, connector: str, prefix: str, because: str, now: datetime) -> int:
        """See LeaseStore.end_together."""
        return await self._writer.submit(lambda tx: end_ops.end_together(tx, connector, prefix, because, now))

    async def end_unregistered(
        self, tenant: str, registered: Callable[[str], bool], now: datetime, by: str = ""
    ) -> int:
        """See LeaseStore.end_unregistered. Writes only if somebody has left."""
        holders = await self._readers.scan(lambda view: reads.living_holders(view, tenant))
        gone = frozenset(holder for holder in holders if not registered(holder))
        if not gone:
            return 0
        return await self._writer.submit(
            lambda tx: 0 if replica_ops.replaced(tx, tenant, by) else end_ops.end_unregistered(tx, tenant, gone, now)
        )

    async def end_denied(self, tenant: str, denied: Callable[[str, str], bool], now: datetime) -> int:
        """See LeaseStore.end_denied. Writes only if somebody is denied."""
        found = await self._readers.scan(lambda view: reads.living_certificates(view, tenant))
        gone = frozenset(pair for pair in found if denied(*pair))
        if not gone:
            return 0
        return await self._writer.submit(lambda tx: end_ops.end_denied(tx, tenant, gone, now))

    async def end_on_behalf_of(self, tenant: str, enabled: Callable[[Human], bool], now: datetime, by: str = "") -> int:
        """See LeaseStore.end_on_behalf_of. Writes only if somebody may have nothing done any more."""
        found = await self._readers.scan(lambda view: reads.acted_for(view, tenant))
        gone = frozenset(stored for stored, human in found.items() if not enabled(human))
        if not gone:
            return 0
        return await self._writer.submit(
            lambda tx: 0 if replica_ops.replaced(tx, tenant, by) else end_ops.end_on_behalf_of(tx, tenant, gone, now)
        )

    # -- suspending

    async def suspend(self, new: NewSuspension, members: Members) -> tuple[Suspension, Ended]:
        """See LeaseStore.suspend. Portion by portion, so that others commit in between."""
        suspension, ended = await self._writer.submit(lambda tx: suspension_ops.suspend(tx, new, members))
        if ended.more:
            ended = ended.plus(
                await self._end_all(new.tenant, suspension.id, members, new.author, new.now, ended.after)
            )
        return suspension, ended

    async def still_alive(self, suspension: Suspension, members: Members) -> Sequence[StillAlive]:
        """See LeaseStore.still_alive."""
        return await self._readers.walk(lambda view: suspension_ops.still_alive(view, suspension, members))

    async def _end_all(
        self, tenant: str, id_: str, members: Members, actor: str, now: datetime, after: tuple[str, str]
    ) -> Ended:
        """What one suspension covers behind a place. Portion by portion, so that others commit in between."""
        ended = Ended(more=True, after=after)
        while ended.more:
            further = partial(
                suspension_ops.end_more,
                tenant=tenant,
                suspension_id=id_,
                members=members,
                actor=actor,
                now=now,
                after=ended.after,
            )
            ended = ended.plus(await self._writer.submit(further))
        return ended

    async def fresh_logins(self, tenant: str, about: str) -> Sequence[tuple[str, str, str]]:
        """See LeaseStore.fresh_logins."""
        return await self._readers.scan(lambda view: proof_ops.kept_proofs(view, tenant, about))

    async def resume(self, lifting: Lifting) -> Suspension:
        """See LeaseStore.resume."""
        return await self._writer.submit(lambda tx: suspension_ops.resume(tx, lifting))

    async def suspensions(self, tenant: str, ended: bool, after: str, limit: int) -> Sequence[Suspension]:
        """See LeaseStore.suspensions."""
        return await self._readers.scan(lambda view: suspension_ops.page(view, tenant, ended, after, limit))

    async def check_suspended(self, tenant: str, subject: Subject, now: datetime) -> None:
        """See LeaseStore.check_suspended."""
        await self._readers.point(lambda view: suspension_ops.check(view, tenant, subject, now))

    async def tend_suspensions(self, tenant: str, members: Members, now: datetime) -> Ended:
        """See LeaseStore.tend_suspensions."""
        look = self._looks.get(tenant, suspension_ops.Look(tenant, limit=_ALL))
        needed, after = await self._readers.scan(lambda view: suspension_ops.needs_tending(view, look, members, now))
        self._looks[tenant] = suspension_ops.Look(tenant, after)
        if not needed:
            return Ended()
        ended = await self._writer.submit(lambda tx: suspension_ops.tend(tx, look, members, now))
        if ended.more:
            for id_, author in await self._readers.scan(lambda view: suspension_ops.authors(view, tenant)):
                ended = ended.plus(await self._end_all(tenant, id_, members, author, now, suspension_ops.BEGINNING))
        news = [suspension_ops.tampered_event(tenant, id_) for id_ in sorted(ended.tampered - self._tampered)]
        if news:
            await self.append(news, now)
            self._tampered |= ended.tampered
        return ended

    async def claim_due(self, connector: str, now: datetime, limit: int, claim_for: timedelta) -> Sequence[Attempt]:
        """See LeaseStore.claim_due."""
        return await self._writer.submit(lambda tx: revoke_ops.claim_due(tx, connector, now, limit, claim_for))

    async def next_due(self, connector: str) -> datetime | None:
        """See LeaseStore.next_due."""
        return await self._readers.point(lambda view: reads.next_due(view, connector))

    async def record_revocations(self, tried: Sequence[Tried]) -> Sequence[bool]:
        """See LeaseStore.record_revocations."""
        return await self._writer.submit(lambda tx: revoke_ops.record_revocations(tx, tried))

    async def record_revocation(
        self, attempt: Attempt, event: Event | None, now: datetime, next_due: datetime, error: str, stuck: bool
    ) -> bool:
        """See LeaseStore.record_revocation."""
        (kept,) = await self.record_revocations([Tried(attempt, event, now, next_due, error, stuck)])
        return kept

    async def recover(self, now: datetime) -> int:
        """See LeaseStore.recover. In portions: however much a crash left, memory holds one portion of it."""
        total = 0
        while portion := await self._writer.submit(lambda tx: revoke_ops.recover(tx, self._name, now)):
            total += portion
        while await self._writer.submit(lambda tx: inherit_ops.take_over(tx, self._name, now)):
            continue
        return total

    # -- reading

    async def get_lease(self, tenant: str, lease_id: str, holder: str) -> Lease:
        """See LeaseStore.get_lease."""
        return await self._readers.point(lambda view: reads.get_lease(view, tenant, lease_id, holder))

    async def is_someone_elses(self, tenant: str, who: str, ids: NamedIds) -> bool:
        """See LeaseStore.is_someone_elses."""
        return await self._readers.scan(lambda view: foreign.is_someone_elses(view, tenant, who, ids))

    async def list_leases(self, filter_: LeaseFilter, after: str, limit: int) -> Sequence[Lease]:
        """See LeaseStore.list_leases."""
        return await self._readers.scan(lambda view: reads.list_leases(view, filter_, after, limit))

    async def living_attempts(self, tenant: str, lease_id: str) -> Sequence[Attempt]:
        """See LeaseStore.living_attempts."""
        return await self._readers.point(lambda view: reads.living_attempts(view, tenant, lease_id))

    async def task_leases(self, tenant: str, task_id: str) -> Sequence[Lease]:
        """See LeaseStore.task_leases."""
        return await self._readers.scan(lambda view: reads.task_leases(view, tenant, task_id))

    async def lease_events(self, tenant: str, holder: str, after: int, limit: int) -> Sequence[LeaseEvent]:
        """See LeaseStore.lease_events."""
        return await self._readers.scan(lambda view: reads.lease_events(view, tenant, holder, after, limit))

    async def changed(self, since: int) -> int:
        """See LeaseStore.changed."""
        if self._head <= since and not self._closed:
            await self._moved.wait()
        return self._head

    async def known_upstream(self, connector: str, names: Sequence[str]) -> frozenset[str]:
        """See LeaseStore.known_upstream."""
        return await self._readers.scan(lambda view: reads.known_upstream(view, connector, names))

    async def connectors_in_use(self) -> frozenset[str]:
        """See LeaseStore.connectors_in_use."""
        return await self._readers.scan(reads.connectors_in_use)

    async def figures(self, now: datetime) -> LedgerFigures:
        """See LeaseStore.figures."""
        return await self._readers.scan(lambda view: reads.figures(view, now))

    async def export_backlog(self, now: datetime) -> ExportBacklog:
        """See LeaseStore.export_backlog."""
        return await self._readers.scan(lambda view: reads.export_backlog(view, now))

    # -- the deploy set

    async def accept_deploy(self, tenant: str, serial: int, digest: str, now: datetime) -> AcceptedDeploy:
        """See LeaseStore.accept_deploy."""
        return await self._writer.submit(lambda tx: deploy_ops.accept(tx, tenant, serial, digest, now))

    # -- audit

    async def append(self, events: Sequence[AuditEvent], now: datetime) -> None:
        """See LeaseStore.append."""

        def record(tx: Transaction) -> None:
            for event in events:
                tx.audit(event, to_ms(now))

        await self._writer.submit(record)

    async def audit_since(self, after: int, limit: int) -> Sequence[bytes]:
        """See LeaseStore.audit_since."""
        return await self._readers.scan(lambda view: reads.audit_since(view, after, limit))

    async def audit_exported(self, upto: int) -> None:
        """See LeaseStore.audit_exported."""
        await self._writer.submit(lambda tx: tx.run("set_exported", {"upto": upto}))

    # -- webhooks

    async def webhook_position(self, tenant: str, destination: str) -> int | None:
        """See LeaseStore.webhook_position."""
        key = {"tenant": tenant, "destination": destination}
        found = await self._readers.scan(lambda view: view.one("webhook_position", key))
        return None if found is None else int(found[0])

    async def webhook_delivered(self, tenant: str, destination: str, upto: int) -> None:
        """See LeaseStore.webhook_delivered."""
        row = {"tenant": tenant, "destination": destination, "upto": upto}
        await self._writer.submit(lambda tx: tx.run("webhook_delivered", row))


def _head(writing: Writing, seal: RowSeal) -> Head:
    """Where the chain goes on, read while nobody writes: others may be at it already."""
    writing.begin()
    try:
        return read_head(View(writing.connection, writing.dialect, seal), seal.keys)
    finally:
        writing.roll_back()
