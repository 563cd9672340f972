"""Operations on access requests, each inside one write transaction; and what is read of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta

from broker.approval.digest import check_digest, much_less
from broker.approval.machine import RequestEvent, RequestState, can, refusal
from broker.approval.repeated import repeats
from broker.audit.event import EventType
from broker.audit.record import decode
from broker.errors import Conflict, Denied, Exhausted, InvalidInput, NotFound, Reason
from broker.ports.access_requests import FiledRequest, Filing, RequestEventRecord, RequestFilter, Vote
from broker.scope.canonical import JsonValue, canonical_json
from broker.stores import text_ops
from broker.stores.access_moves import lapse, move, tell
from broker.stores.access_rows import (
    RequestRow,
    filed,
    insert_request,
    packed_request,
    put_vote,
    read_request,
    trusted,
    votes_of,
)
from broker.stores.proof_ops import keep_proof
from broker.stores.rows import trust_task
from broker.stores.seal import tampered
from broker.stores.task_ops import admit_participant, find_task
from broker.stores.times import from_ms, span_ms, to_ms
from broker.stores.transaction import CommitAndRaise, Transaction
from broker.stores.view import View


def open_access_request(tx: Transaction, filing: Filing) -> FiledRequest:
    """See LeaseStore.open_access_request."""
    row = decide(tx, filing)
    if row is None:
        row = _row(tx, filing)
        insert_request(tx, row)
        scope, request = filing.scope, filing.request
        about: dict[str, JsonValue] = {
            **filing.audit,
            "request_id": row.request_id,
            "approvals": sorted(filing.decision.approvals),
            "policies": filing.decision.policies,
            "policy_digest": row.policy_digest,
            "template": row.template,
            "template_digest": row.template_digest,
            "account": scope.account,
            "environment": scope.environment,
            "resource": scope.resource,
            "access": scope.access.value,
            "actions": scope.actions,
            "parameters": dict(scope.parameters),
            "ttl_ms": span_ms(request.ttl),
            "expires_ms": row.expires_at,
        }
        tell(tx, EventType.ACCESS_REQUESTED, row, row.holder, row.created_at, about)
        text_ops.keep(tx, row.tenant, row.task_id, text_ops.claimed_in(request), row.id, row.created_at)
    return filed(row, votes_of(tx, row), tx.seal)


def decide(view: View, filing: Filing) -> RequestRow | None:
    """The request that has this request id already; None if a new one may be filed. Writes nothing."""
    request = filing.request
    task = trust_task(find_task(view, filing.tenant, request.task_id))
    admit_participant(task, filing.holder, filing.now, filing.now + request.ttl)
    key = {"tenant": filing.tenant, "holder": filing.holder, "request_id": request.request_id}
    raw = view.one("access_request_by_request", key)
    if raw is not None:
        return _repeated(trusted(read_request(raw, view)), filing)
    since = {"tenant": filing.tenant, "ask_digest": filing.ask_digest, "since": to_ms(filing.denied_since)}
    for denied_at, denied in view.all("denied_lately", since):
        if not _less(request.ttl, _ttl(denied)):
            raise _denied_before(from_ms(denied_at) + filing.cool_down)
    quota = {"tenant": filing.tenant, "holder": filing.holder, "quota": filing.max_pending}
    if view.row("count_pending_requests", quota)[0] >= filing.max_pending:
        raise Exhausted(
            Reason.QUOTA_PENDING_REQUESTS,
            f"{filing.holder} already has {filing.max_pending} requests waiting for people.",
            hint="Wait for an answer, or withdraw one; an operator sets the quota in the agent's file.",
            metadata={"quota": str(filing.max_pending)},
        )
    return None


def _less(asked: timedelta | None, denied: timedelta | None) -> bool:
    """Whether it is another request than the denied one for its TTL. One that nobody knows is not: it only refuses."""
    return asked is not None and denied is not None and much_less(asked, denied)


def _ttl(kept: str) -> timedelta | None:
    """The TTL of a request as it is kept; None of a damaged one."""
    try:
        return timedelta(microseconds=json.loads(kept)["ttl_us"])
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _repeated(row: RequestRow, filing: Filing) -> RequestRow:
    if row.request_digest != filing.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {row.request_id!r} already names access request {row.id}, which asks for something else.",
            hint="Use a fresh request id for a new request.",
            metadata={"requestId": row.request_id, "accessRequestId": row.id},
        )
    return row


def _denied_before(again: datetime) -> Denied:
    return Denied(
        Reason.DENIED_BEFORE,
        f"people denied the same request a short while ago; it can be asked again from {again.isoformat()} on.",
        hint="Talk to who denied it, or ask for less: of time, at most half. Other words do not make it another.",
        metadata={"askAgain": again.isoformat()},
    )


def _row(tx: Transaction, filing: Filing) -> RequestRow:
    scope, request = filing.scope, filing.request
    task = find_task(tx, filing.tenant, request.task_id)
    expires_ms = min(to_ms(filing.expires_at), task.deadline)
    return RequestRow(
        tenant=filing.tenant,
        id=filing.id,
        task_id=request.task_id,
        holder=filing.holder,
        principal=filing.principal,
        request_id=request.request_id,
        request_digest=filing.request_digest,
        digest=filing.digest,
        ask_digest=filing.ask_digest,
        request=packed_request(request),
        template=scope.template,
        template_digest=scope.template_digest,
        scope=canonical_json(
            {
                "connector": scope.connector,
                "account": scope.account,
                "environment": scope.environment,
                "resource": scope.resource,
                "access": scope.access.value,
                "actions": scope.actions,
                "parameters": dict(scope.parameters),
            }
        ).decode(),
        contract_class=str(filing.contract_class),
        policies=canonical_json(filing.decision.policies).decode(),
        policy_digest=filing.decision.set_digest,
        approvals=canonical_json(sorted(filing.decision.approvals)).decode(),
        interests=canonical_json([[*each.person, each.part] for each in filing.interests]).decode(),
        created_at=to_ms(filing.now),
        expires_at=expires_ms,
        redeem_within=span_ms(filing.redeem_within),
        state=RequestState.AWAITING_APPROVAL.value,
        approved_at=None,
        redeem_by=None,
        due_at=expires_ms,
        ended_at=None,
        ended_by="",
        note="",
        lease_id="",
        redemption_id="",
        tool_call=tx.seal.conceal(request.tool_call, RequestRow.TABLE, "tool_call", filing.id),
        plan=tx.seal.conceal(request.plan, RequestRow.TABLE, "plan", filing.id),
        epoch=1,
    )


def vote(
    tx: Transaction,
    tenant: str,
    access_request_id: str,
    digest: str,
    given: Vote,
    satisfied: Callable[[FiledRequest], bool],
) -> FiledRequest:
    """See LeaseStore.vote. Everything is decided before anything is written."""
    row = trusted(find(tx, tenant, access_request_id))
    earlier = votes_of(tx, row)
    check_digest(digest, row.digest, row.id)
    if repeats(given.issuer, given.subject, given.request_id, given.yes, earlier, row.id):
        return filed(row, earlier, tx.seal)
    now_ms = to_ms(given.at)
    event = RequestEvent.APPROVE if given.yes else RequestEvent.DENY
    refuse_unless(row, event, now_ms)
    who = (given.issuer, given.subject)
    others = tuple(each for each in earlier if (each.issuer, each.subject) != who)
    if given.yes and len(others) < len(earlier):
        raise Conflict(
            Reason.VOTE_ALREADY_CAST,
            f"{given.issuer}#{given.subject} has voted on access request {row.id} already.",
            hint="One vote per person and request, whatever groups they are in. A no is still taken.",
            metadata={"accessRequestId": row.id},
        )
    votes = (*others, given)
    enough = given.yes and satisfied(filed(row, votes, tx.seal))
    keep_proof(tx, tenant, given.proof, now_ms)
    put_vote(tx, row, given)
    actor = f"{given.issuer}#{given.subject}"
    about: dict[str, JsonValue] = {
        "vote": "yes" if given.yes else "no",
        "approval": given.rule,
        "how": given.how,
        "groups": given.groups,
        "note": given.note,
        "fresh_login": None if given.proof is None else given.proof.digest,
    }
    tell(tx, EventType.ACCESS_VOTED, row, actor, now_ms, about)
    if enough:
        row.approved_at, row.redeem_by = now_ms, now_ms + row.redeem_within
        people: list[JsonValue] = [f"{each.issuer}#{each.subject}" for each in votes if each.yes]
        move(tx, row, RequestEvent.APPROVE, actor, now_ms, {"people": people, "redeem_by_ms": row.redeem_by})
    elif not given.yes:
        row.note = given.note
        move(tx, row, RequestEvent.DENY, actor, now_ms, {"note": given.note})
        _deny_the_same(tx, row, actor, now_ms)
    return filed(row, votes, tx.seal)


def _deny_the_same(tx: Transaction, denied: RequestRow, actor: str, now_ms: int) -> None:
    """What could not be asked again now, and was asked a second time before: nobody has to say no once more."""
    for raw in tx.all("waiting_access_requests_of_ask", {"tenant": denied.tenant, "ask_digest": denied.ask_digest}):
        row = read_request(raw, tx)
        if not _less(_ttl(row.request), _ttl(denied.request)):
            row.note = denied.note
            move(tx, row, RequestEvent.DENY, actor, now_ms, {"note": denied.note, "with": denied.id})


def withdraw(
    tx: Transaction, tenant: str, access_request_id: str, holder: str, now: datetime
) -> FiledRequest | CommitAndRaise:
    """See LeaseStore.withdraw_access_request. One whose row fails its MAC is ended, too, and then told of."""
    row = find(tx, tenant, access_request_id, holder)
    if row.state != RequestState.WITHDRAWN:
        move(tx, row, RequestEvent.WITHDRAW, holder, to_ms(now))
    if not row.trusted:
        return CommitAndRaise(tampered(row.TABLE, row.id))
    return filed(row, votes_of(tx, row), tx.seal)


def lapse_due(tx: Transaction, now: datetime, limit: int) -> int:
    """See LeaseStore.lapse_access_requests."""
    now_ms = to_ms(now)
    due = [read_request(raw, tx) for raw in tx.all("access_requests_due", {"now": now_ms, "limit": limit})]
    return sum(tx.each(lambda row: lapse(tx, row, now_ms), due))


def refuse_unless(row: RequestRow, event: RequestEvent, now_ms: int) -> None:
    """Raises WrongState for an event that the request's state, or its deadline, does not allow. Swept or not."""
    state = RequestState(row.state)
    if not can(state, event):
        raise refusal(state, row.id)
    if row.due_at is not None and now_ms >= row.due_at:
        raise refusal(RequestState.LAPSED, row.id)


# ------------------------------------------------------------------ reading


def find(view: View, tenant: str, access_request_id: str, holder: str = "") -> RequestRow:
    """The request's row, trusted or not. Raises NotFound; with a ``holder``, also for somebody else's."""
    raw = view.one("access_request_by_id", {"tenant": tenant, "id": access_request_id})
    row = None if raw is None else read_request(raw, view)
    if row is None or (holder and row.holder != holder):
        raise NotFound(
            Reason.ACCESS_REQUEST_NOT_FOUND,
            f"there is no access request {access_request_id!a}{' of yours' if holder else ''}.",
            hint="List the requests to see which there are.",
            metadata={"accessRequestId": access_request_id[:64]},
        )
    return row


def get(view: View, tenant: str, access_request_id: str, holder: str) -> FiledRequest:
    """See LeaseStore.get_access_request."""
    row = trusted(find(view, tenant, access_request_id, holder))
    return filed(row, votes_of(view, row), view.seal)


def any_due(view: View, now: datetime) -> bool:
    """Whether :func:`lapse_due` has anything to do."""
    return bool(view.row("any_access_request_due", {"now": to_ms(now)})[0])


def pending(view: View, tenant: str, holder: str) -> int:
    """See LeaseStore.pending_access_requests. At most a thousand are counted."""
    count: int = view.row("count_pending_requests", {"tenant": tenant, "holder": holder, "quota": 1000})[0]
    return count


def last_approved_plan(view: View, tenant: str, principal: str, template: str) -> tuple[str, str]:
    """See LeaseStore.last_approved_plan."""
    raw = view.one("last_approved_plan", {"tenant": tenant, "principal": principal, "template": template})
    if raw is None:
        return "", ""
    row = trusted(read_request(raw, view))
    return row.id, view.seal.reveal(row.plan, row.TABLE, "plan", row.id)


def events(view: View, tenant: str, holder: str, after: int, limit: int) -> list[RequestEventRecord]:
    """See LeaseStore.access_request_events."""
    key = {"tenant": tenant, "holder": holder}
    raws = view.all("access_events_of_holder", {**key, "after": after, "limit": limit})
    (previous,) = view.row("access_event_before", {**key, "upto": after}) if raws else (0,)
    found = []
    for seq, body, *raw in raws:
        record, row = decode(body), trusted(read_request(tuple(raw), view))
        told = filed(row, votes_of(view, row), view.seal)
        found.append(RequestEventRecord(seq, previous, from_ms(record.at_ms), record.type, told))
        previous = seq
    return found


def page(view: View, filter_: RequestFilter, after: str, limit: int) -> list[FiledRequest]:
    """See LeaseStore.list_access_requests. Raises InvalidInput (PAGE_TOKEN_INVALID) for an ``after`` that is none."""
    after_ms = 2**62
    if after:
        try:
            after_ms = find(view, filter_.tenant, after, filter_.holder).created_at
        except NotFound:
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "the page token names no access request.",
                hint="Start again from the first page.",
            ) from None
    key = {"tenant": filter_.tenant, "open_only": filter_.open_only}
    of = {"holder": filter_.holder} if filter_.holder else {}
    query = "access_requests_of_holder" if of else "access_requests_page"
    raws = view.all(query, {**key, **of, "after_ms": after_ms, "after_id": after, "limit": limit})
    rows = [read_request(raw, view) for raw in raws]
    shown = [trusted(row) for row in rows if row.trusted or filter_.holder]
    return [filed(row, votes_of(view, row), view.seal) for row in shown]
