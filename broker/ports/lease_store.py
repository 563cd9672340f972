"""The ledger's half that grants and ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from broker.audit.claimed import Claimed
from broker.audit.event import AuditEvent
from broker.audit.report import TaskReport
from broker.identity.behalf import Human
from broker.lease.machine import Event, State
from broker.policy.quotas import Per
from broker.ports.access_requests import FiledRequest, Filing, RequestEventRecord, RequestFilter, Vote
from broker.ports.access_reviews import AccessReviewSigned, NewAccessReview
from broker.ports.connectors import Handle, Noted
from broker.ports.deploys import AcceptedDeploy
from broker.ports.figures import ExportBacklog, LedgerFigures
from broker.ports.intents import Holdings, Intent, Opened
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
from broker.suspension.suspension import Subject, Suspension


class LeaseStore(Protocol):
    """The ledger: the truth about tasks, leases and attempts, and the audit trail beside them.

    Each method is one durable transaction (or one consistent read); it returns after the commit and
    raises :class:`broker.errors.NotReady` (STORE_UNAVAILABLE) when nothing was committed. The audit
    events of a change are in the same transaction, made here, so that no change goes unrecorded.
    Every state change goes through :func:`broker.lease.machine.next_state`, every due time through
    :func:`broker.lease.deadlines.due_at`. Rows carry a MAC, checked on every read; a row that fails
    is never used for a grant (Tampered ROW_MAC_MISMATCH). Tenant is in every key and predicate.
    """

    # -- tasks
    async def start_task(self, new: NewTask) -> Task:
        """Open a task. Repeating it with the same (creator, request_id, digest) returns the first."""
        ...

    async def get_task(self, tenant: str, task_id: str) -> Task:
        """Raises NotFound (TASK_NOT_FOUND)."""
        ...

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
        """Close an open task and move all its living attempts to REVOKING, due now; no-op if closed.

        ``audit``: what its event shall say beyond cause and figures.

        A task is reported on once, with its end or later: the same report again changes nothing, another one is
        refused and the task closed all the same (Conflict TASK_REPORTED).
        """
        ...

    # -- agents' whole texts
    async def claimed_texts(self, tenant: str, task_id: str) -> Sequence[Claimed]:
        """What agents said in whole on a task, oldest first; nothing where it was erased. Raises Tampered."""
        ...

    async def erase_texts(self, tenant: str, task_id: str, actor: str, reason: str, now: datetime) -> bool:
        """Erase one task's texts, by erasing their key; False if there are none."""
        ...

    async def erase_texts_before(self, before: datetime, limit: int, now: datetime) -> int:
        """Erase the texts of tasks whose first ones are older than ``before``; of how many tasks."""
        ...

    # -- forgetting
    async def forget_lease(self, said: Forgetting) -> Forgotten:
        """The first person's word is kept, the second's makes the lease EXPIRED. Refused: NotFound (LEASE_NOT_FOUND);
        WrongState (LEASE_ENDED; LEASE_NOT_FORGETTABLE where an attempt is not stuck or quarantined, or until a day
        after the upstream itself must have ended it); Denied (SECOND_PERSON_REQUIRED) for the first person again.
        """
        ...

    # -- retention
    async def delete_ended(self, before: datetime, now: datetime) -> int:
        """Delete the tasks that have been over since ``before``, each with its leases, attempts, plans, delegations and
        access requests; how many tasks. Never one of which anything may be alive, is younger, or fails its MAC. Their
        request ids may be used anew. In small transactions, so that others commit in between. What was upstream, no
        lease's, and ended before then goes, too.
        """
        ...

    # -- access reviews
    async def sign_off_access_review(self, new: NewAccessReview) -> AccessReviewSigned:
        """Keep that a person stands for a report; the same again is the first one's answer. Raises Conflict."""
        ...

    async def last_access_review(self, tenant: str) -> datetime | None:
        """When a report was signed off last; None: never."""
        ...

    async def hold_task(self, tenant: str, task_id: str, grace: timedelta, until: datetime, now: datetime) -> Task:
        """Remember that the task is held until ``until``, or longer where another stream has it held for longer.

        Raises WrongState (TASK_ENDED).
        """
        ...

    async def end_due_tasks(self, now: datetime, limit: int) -> int:
        """Close the open tasks whose deadline or hold has passed, like :meth:`end_task`; how many."""
        ...

    # -- issuing
    async def open_intent(self, intent: Intent) -> Opened:
        """The intent transaction: see :class:`Intent`.

        Same (holder, request_id) and digest as a living lease: that lease gets a further attempt, its
        older living attempts go to REVOKING (cause REPLACED) in the same transaction; if one of them
        is still ISSUING and before its issue_deadline: Conflict (REQUEST_IN_FLIGHT). So does a lease that is
        REVOKING because its delivery failed; if such a lease has ended, a retry opens a new one. A lease that
        ran its course (completed, released, expired, ...) is not asked for again: WrongState (LEASE_ENDED).
        """
        ...

    async def index_quotas(self, kinds: frozenset[Per]) -> None:
        """Make ready for quotas of living leases of these kinds, and of no others. Idempotent.

        Only how fast :meth:`open_intent` counts depends on it: a ledger that has no such quota keeps no index for it.
        """
        ...

    async def check_intent(self, intent: Intent) -> None:
        """Refuse what :meth:`open_intent` would refuse now, and write nothing (AIP-163)."""
        ...

    async def holdings(self, tenant: str, holder: str, request_id: str) -> Holdings:
        """What ``holder`` has alive, without the lease of ``request_id``. Raises Tampered for a row that fails."""
        ...

    async def checkpoint(
        self, tenant: str, attempt_id: str, epoch: int, handle: Handle, upstream: str | None, now: datetime
    ) -> None:
        """Replace the handle of an ISSUING attempt. Raises WrongState (LEASE_ENDED) if it was ended."""
        ...

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
        """ISSUING to ACTIVE. If the attempt was ended, or its task is closed or past its deadline:

        nothing is activated, the attempt is (left or moved) REVOKING, and WrongState is raised.
        ``expires_at`` may only shorten the lease. ``noted`` is kept as by :meth:`checkpoint`, also of an attempt
        that is moved to REVOKING here.
        """
        ...

    async def confirm_delivery(
        self, tenant: str, lease_id: str, holder: str, attempt_id: str, now: datetime, person: str = ""
    ) -> Lease:
        """The holder has it. Idempotent while ACTIVE. NotFound for others, WrongState (LEASE_ENDED).

        Denied (SUSPENDED) where a suspension ended it.

        What was got by break-glass went to ``person``, and nobody else has it: NotFound for its holder alone.
        """
        ...

    # -- asking people
    async def open_access_request(self, filing: Filing) -> FiledRequest:
        """File a request: see :class:`Filing`. The same (holder, request_id, content) again returns the first."""
        ...

    async def check_access_request(self, filing: Filing) -> None:
        """Refuse what :meth:`open_access_request` would refuse now, and write nothing (AIP-163)."""
        ...

    async def vote(
        self,
        tenant: str,
        access_request_id: str,
        digest: str,
        vote: Vote,
        satisfied: Callable[[FiledRequest], bool],
    ) -> FiledRequest:
        """Record one person's vote at ``vote.at``, and what it makes of the request.

        The same (person, request_id) again, with the same vote on the same digest, changes nothing and returns the
        request as it is, whatever has become of it; with another one: Conflict (REQUEST_ID_REUSED).

        A no denies an open request. A yes is taken while the request waits; where ``satisfied`` is then true of the
        request with this vote in it, the request is APPROVED in the same transaction. ``satisfied`` is pure and may
        raise, which refuses the vote. Of votes, withdrawals and redemptions at once, each is decided on what those
        before it left. Refused: NotFound (ACCESS_REQUEST_NOT_FOUND), Conflict (APPROVAL_DIGEST_MISMATCH where
        ``digest`` is not the request's, VOTE_ALREADY_CAST for a second yes), WrongState (the reason of its state;
        ACCESS_REQUEST_LAPSED from its deadline on, swept or not), Tampered for a request or vote that fails its MAC,
        Denied (FRESH_LOGIN_USED) for a proof that is there already.
        """
        ...

    async def withdraw_access_request(
        self, tenant: str, access_request_id: str, holder: str, now: datetime
    ) -> FiledRequest:
        """Its holder takes an open request back; no-op if it is WITHDRAWN. NotFound for others, WrongState else."""
        ...

    async def lapse_access_requests(self, now: datetime, limit: int) -> int:
        """End the open requests whose deadline has passed (LAPSED); how many."""
        ...

    async def get_access_request(self, tenant: str, access_request_id: str, holder: str = "") -> FiledRequest:
        """Raises NotFound (ACCESS_REQUEST_NOT_FOUND) also where ``holder`` is given and is not its holder."""
        ...

    async def list_access_requests(self, filter_: RequestFilter, after: str, limit: int) -> Sequence[FiledRequest]:
        """Newest first; ``after`` is the id of the last one of the page before, or empty. Those that fail their MAC
        are left out where everybody's are listed, so that one damaged row does not hide the others.
        """
        ...

    async def access_request_events(
        self, tenant: str, holder: str, after: int, limit: int
    ) -> Sequence[RequestEventRecord]:
        """The holder's events of access requests with a sequence above ``after``, in order."""
        ...

    async def last_approved_plan(self, tenant: str, principal: str, template: str) -> tuple[str, str]:
        """(access request id, plan) of the request by ``principal`` under ``template`` that had a plan and was approved
        last (and not denied or withdrawn since); two empty texts where there is none.
        """
        ...

    async def pending_access_requests(self, tenant: str, holder: str) -> int:
        """How many requests of ``holder`` wait for people."""
        ...

    # -- ending
    async def end_attempt(
        self, tenant: str, attempt_id: str, event: Event, cause: EndCause, now: datetime, detail: str = ""
    ) -> State:
        """Apply NEVER_ISSUED or END to one attempt (any epoch); a no-op where the machine has no such pair."""
        ...

    async def end_leases(
        self,
        selector: Selector,
        cause: EndCause,
        actor: str,
        now: datetime,
        audit: Mapping[str, JsonValue] | None = None,
    ) -> int:
        """Move every living attempt of the selected leases to REVOKING, due now; how many attempts.

        ``audit``: what their events shall say beyond the cause.
        """
        ...

    async def end_unregistered(
        self, tenant: str, registered: Callable[[str], bool], now: datetime, by: str = ""
    ) -> int:
        """End the living leases for whose holder ``registered`` is false; how many attempts.

        ``by``: the digest of the deploy set that says so. Where another one is in force by then, nobody is ended.
        """
        ...

    async def end_denied(self, tenant: str, denied: Callable[[str, str], bool], now: datetime) -> int:
        """End the living leases for whose (holder, svid_serial) ``denied`` is true; how many attempts."""
        ...

    async def end_on_behalf_of(self, tenant: str, enabled: Callable[[Human], bool], now: datetime, by: str = "") -> int:
        """End the living leases of open tasks that act for whom ``enabled`` is false of; how many attempts.

        ``by`` as for :meth:`end_unregistered`.
        """
        ...

    async def fresh_logins(self, tenant: str, about: str) -> Sequence[tuple[str, str, str]]:
        """The fresh logins that are the record of acts about ``about``: (issuer, subject, signed token), oldest first.

        Raises Tampered for one that fails its MAC.
        """
        ...

    # -- suspending
    async def suspend(self, new: NewSuspension, members: Members) -> tuple[Suspension, Ended]:
        """Stop what ``new`` says, now. What is being issued under it ends in the same transaction, so that:

        no intent that it covers commits afterwards (:meth:`open_intent` refuses), and no attempt that it covers
        becomes ACTIVE afterwards. What is ACTIVE is REVOKING when this returns.
        """
        ...

    async def still_alive(self, suspension: Suspension, members: Members) -> Sequence[StillAlive]:
        """What ``suspension`` covers and is being ended, by it or before it, and not proven dead; by connector.

        Attempts are counted as they are, MAC or not.
        """
        ...

    async def resume(self, lifting: Lifting) -> Suspension:
        """Lift a suspension; nothing that it ended comes back.

        Where everything is suspended, or the row fails its MAC, two different people must say so: the first is
        recorded and the suspension stays in force; the same person again is Denied (SECOND_PERSON_REQUIRED).
        Raises NotFound (SUSPENSION_NOT_FOUND), WrongState (SUSPENSION_ENDED), Denied (FRESH_LOGIN_USED) for a proof
        that is there already.
        """
        ...

    async def suspensions(self, tenant: str, ended: bool, after: str, limit: int) -> Sequence[Suspension]:
        """Newest first, those that are over only with ``ended``; ``after`` is the last id of the page before, or empty.

        Raises InvalidInput (PAGE_TOKEN_INVALID) for an ``after`` that is none.
        """
        ...

    async def check_suspended(self, tenant: str, subject: Subject, now: datetime) -> None:
        """Raises Denied (SUSPENDED) if a suspension in force covers ``subject``. Costs next to nothing otherwise."""
        ...

    async def tend_suspensions(self, tenant: str, members: Members, now: datetime) -> Ended:
        """What time and chance bring: end suspensions by their time, and whatever lives although it is suspended.

        (A crash between the portions of :meth:`suspend`; an agent that a reload gave another owner.) A row that
        fails its MAC counts as in force from here on, and is an alarm. Writes only if there is something to do.
        """
        ...

    async def claim_due(self, connector: str, now: datetime, limit: int, claim_for: timedelta) -> Sequence[Attempt]:
        """Take due attempts of one connector: of those due longest, the ones that end soonest by themselves first.

        But what has been due for a minute goes before those.

        Each is moved to REVOKING first if it was ISSUING (OUTCOME_UNKNOWN) or ACTIVE (EXPIRED or
        UNCONFIRMED), gets epoch + 1 and is due again at ``now + claim_for``: a claimer that dies is
        replaced. The returned attempts carry the new epoch.
        """
        ...

    async def next_due(self, connector: str) -> datetime | None:
        """When the first of one connector's living attempts is due; None where none lives."""
        ...

    async def record_revocations(self, tried: Sequence[Tried]) -> Sequence[bool]:
        """Results of tries, in one transaction, each under its claim's epoch; False for each whose claim was lost."""
        ...

    async def record_revocation(
        self, attempt: Attempt, event: Event | None, now: datetime, next_due: datetime, error: str, stuck: bool
    ) -> bool:
        """The same of one try."""
        ...

    async def recover(self, now: datetime) -> int:
        """At boot, before serving: what is due goes to REVOKING, due now; how many.

        So do ISSUING attempts that are not due yet, whose broker is gone: all of them, unless other replicas live. If
        some do, those of a replica that died come due by themselves, at their issue_deadline. And so are, uncounted and
        with nobody beside, revocations that a process which is no more had begun, also of what no lease is of: no claim
        outlives who made it.
        """
        ...

    # -- reading
    async def get_lease(self, tenant: str, lease_id: str, holder: str) -> Lease:
        """Raises NotFound (LEASE_NOT_FOUND) also where ``holder`` is somebody else.

        Who handed on what the lease is a part of sees it like its holder.
        """
        ...

    async def is_someone_elses(self, tenant: str, who: str, ids: NamedIds) -> bool:
        """Whether one of them exists and is another's: a task that ``who`` has no part in, or a plan of it, a lease or
        access request of another holder, a delegation that went through other hands.

        An empty id is nobody's. For counting what agents must not be told: its time depends on the answer.
        """
        ...

    async def list_leases(self, filter_: LeaseFilter, after: str, limit: int) -> Sequence[Lease]:
        """Newest first; ``after`` is the id of the last lease of the page before, or empty."""
        ...

    async def living_attempts(self, tenant: str, lease_id: str) -> Sequence[Attempt]:
        """The attempts of a lease that may still be alive upstream."""
        ...

    async def task_leases(self, tenant: str, task_id: str) -> Sequence[Lease]:
        """All leases of a task, whoever holds them."""
        ...

    async def lease_events(self, tenant: str, holder: str, after: int, limit: int) -> Sequence[LeaseEvent]:
        """The holder's events with a sequence above ``after``, in order."""
        ...

    async def changed(self, since: int) -> int:
        """Wait until the audit head is above ``since``; the head. (May return early and unchanged.)"""
        ...

    async def end_together(self, connector: str, prefix: str, because: str, now: datetime) -> int:
        """End (ENDED_TOGETHER) every living attempt of ``connector`` whose upstream name starts with ``prefix``.

        ``because``: the attempt that could not be ended alone; their events tell it. How many attempts.
        """
        ...

    async def known_upstream(self, connector: str, names: Sequence[str]) -> frozenset[str]:
        """Of these upstream names, those recorded by a checkpoint."""
        ...

    async def connectors_in_use(self) -> frozenset[str]:
        """The connectors that living attempts need."""
        ...

    async def figures(self, now: datetime) -> LedgerFigures:
        """For /metrics: counts what lives."""
        ...

    async def export_backlog(self, now: datetime) -> ExportBacklog:
        """How far the audit export is behind. Costs the same however much lives: it is asked every second."""
        ...

    # -- the deploy set
    async def accept_deploy(self, tenant: str, serial: int, digest: str, now: datetime) -> AcceptedDeploy:
        """Remember that a signed set comes into force, unless a newer one, or another of its serial, did.

        Returns what is remembered then: (serial, digest) itself if it was accepted. Raises Tampered
        (ROW_MAC_MISMATCH) if what was remembered is not ours.
        """
        ...

    # -- audit
    async def append(self, events: Sequence[AuditEvent], now: datetime) -> None:
        """Record events that change nothing else (refusals, reloads)."""
        ...

    async def audit_since(self, after: int, limit: int) -> Sequence[bytes]:
        """The canonical bytes of audit records with a sequence above ``after``, in order."""
        ...

    async def audit_exported(self, upto: int) -> None:
        """The sink has durably taken everything up to this sequence."""
        ...

    # -- webhooks
    async def webhook_position(self, tenant: str, destination: str) -> int | None:
        """The sequence up to which ``destination`` has been told; None for one that is new."""
        ...

    async def webhook_delivered(self, tenant: str, destination: str, upto: int) -> None:
        """``destination`` has been told everything up to ``upto``. Never goes back."""
        ...

    async def close(self) -> None:
        """Commit what is queued and close."""
        ...
