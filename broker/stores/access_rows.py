"""Rows of access requests and votes, as the database keeps them and as the port shows them.

Like ``rows.py``, which holds those of tasks and leases: fields in the order of the column lists in
``sql/access.sql``, first what never changes. A request that fails its MAC is never approved and never redeemed;
it is still ended, with a MAC that stays wrong, because ending it only takes away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from operator import attrgetter
from typing import Any, ClassVar

import orjson

from broker.approval.machine import RequestState
from broker.approval.separation import Interest
from broker.ports.access_requests import FiledRequest, Vote
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.model import AccessClass, Scope
from broker.scope.request import AccessRequest, Digested, text_digest
from broker.stores.rows import Raw
from broker.stores.seal import RowSeal, tampered
from broker.stores.times import from_ms, optional_at, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

_MICROSECOND = timedelta(microseconds=1)
_NO_MAC = bytes(32)


@dataclass(slots=True)
class RequestRow:
    """A row of ``access_requests``. ``seen_epoch`` is the epoch that was read: what an update compares."""

    TABLE: ClassVar[str] = "access_requests"

    tenant: str
    id: str
    task_id: str
    holder: str
    principal: str
    request_id: str
    request_digest: str
    digest: str
    ask_digest: str
    request: str
    template: str
    template_digest: str
    scope: str
    contract_class: str
    policies: str
    policy_digest: str
    approvals: str
    interests: str
    created_at: int
    expires_at: int
    redeem_within: int
    state: str
    approved_at: int | None
    redeem_by: int | None
    due_at: int | None
    ended_at: int | None
    ended_by: str
    note: str
    lease_id: str
    redemption_id: str
    tool_call: str  # concealed, as is the plan
    plan: str
    epoch: int
    trusted: bool = True
    seen_epoch: int = 0


@dataclass(slots=True)
class VoteRow:
    """A row of ``access_votes``."""

    TABLE: ClassVar[str] = "access_votes"

    tenant: str
    access_request_id: str
    issuer: str
    subject: str
    yes: int
    rule: str
    digest: str
    how: str
    note: str
    groups: str
    at: int
    # Of a later schema, NULL in rows older than it.
    request_id: str | None = None


_REQUEST = [field.name for field in fields(RequestRow) if field.name not in ("trusted", "seen_epoch")]
_FIXED = _REQUEST.index("state")
request_values = attrgetter(*_REQUEST)
vote_values = attrgetter(*(field.name for field in fields(VoteRow)))


def read_request(raw: Raw, view: View) -> RequestRow:
    """The request in a raw row, its MAC checked."""
    *values, mac, key_id = raw
    row = RequestRow(*values)
    row.trusted = view.seal.holds(RequestRow.TABLE, tuple(values), mac, key_id)
    row.seen_epoch = row.epoch
    return row


def trusted(row: RequestRow) -> RequestRow:
    """The row itself. Raises Tampered (ROW_MAC_MISMATCH)."""
    if not row.trusted:
        raise tampered(row.TABLE, row.id)
    return row


def votes_of(view: View, row: RequestRow) -> tuple[Vote, ...]:
    """The votes on a request, in order of time. Raises Tampered for one that fails its MAC, or saw another digest."""
    return tuple(_vote(raw, row, view) for raw in view.all("votes_of_request", {"tenant": row.tenant, "id": row.id}))


def _vote(raw: Raw, request: RequestRow, view: View) -> Vote:
    *values, mac, key_id = raw
    row = VoteRow(*values)
    if not view.seal.holds(VoteRow.TABLE, vote_sealed(values), mac, key_id) or row.digest != request.digest:
        raise tampered(row.TABLE, row.access_request_id)
    return Vote(
        issuer=row.issuer,
        subject=row.subject,
        yes=bool(row.yes),
        rule=row.rule,
        how=row.how,
        note=row.note,
        groups=tuple(orjson.loads(row.groups)),
        at=from_ms(row.at),
        request_id=row.request_id or "",
    )


def vote_sealed(values: Sequence[Any]) -> Raw:
    """What the MAC of a vote is over: the column of a later schema only where it is not NULL."""
    return tuple(values if values[-1] is not None else values[:-1])


def insert_request(tx: Transaction, row: RequestRow) -> None:
    """Add a request."""
    values = request_values(row)
    tx.run("insert_access_request", (*values, *tx.seal.make(row.TABLE, values)))


def update_request(tx: Transaction, row: RequestRow) -> bool:
    """Store what may change of a request, if its epoch is still the one read. An untrusted row stays without a MAC."""
    row.epoch = row.seen_epoch + 1
    values = request_values(row)
    mac, key_id = tx.seal.make(row.TABLE, values)
    key = (mac if row.trusted else _NO_MAC, key_id, row.tenant, row.id, row.seen_epoch)
    changed = tx.run("update_access_request", (*values[_FIXED:], *key)) == 1
    row.seen_epoch = row.epoch
    return changed


def put_vote(tx: Transaction, request: RequestRow, vote: Vote) -> None:
    """Add a vote, in the place of an earlier one of the same person."""
    row = VoteRow(
        tenant=request.tenant,
        access_request_id=request.id,
        issuer=vote.issuer,
        subject=vote.subject,
        yes=int(vote.yes),
        rule=vote.rule,
        digest=request.digest,
        how=vote.how,
        note=vote.note,
        groups=canonical_json(list(vote.groups)).decode(),
        at=to_ms(vote.at),
        request_id=vote.request_id or None,
    )
    values = vote_values(row)
    tx.run("put_vote", (*values, *tx.seal.make(row.TABLE, vote_sealed(values))))


def filed(row: RequestRow, votes: tuple[Vote, ...], seal: RowSeal) -> FiledRequest:
    """The port's view of a trusted request."""
    scope: Mapping[str, Any] = orjson.loads(row.scope)
    request = unpacked_request(orjson.loads(row.request))
    return FiledRequest(
        tenant=row.tenant,
        id=row.id,
        holder=row.holder,
        principal=row.principal,
        request=request,
        digest=row.digest,
        scope=Scope(
            template=row.template,
            template_digest=row.template_digest,
            connector=scope["connector"],
            account=scope["account"],
            environment=scope["environment"],
            resource=scope["resource"],
            access=AccessClass(scope["access"]),
            actions=tuple(scope["actions"]),
            parameters=scope["parameters"],
            ttl=request.ttl,
            grant={},
        ),
        contract_class=row.contract_class,
        policies=tuple(orjson.loads(row.policies)),
        policy_digest=row.policy_digest,
        approvals=tuple(orjson.loads(row.approvals)),
        interests=tuple(Interest((issuer, subject), part) for issuer, subject, part in orjson.loads(row.interests)),
        created_at=from_ms(row.created_at),
        expires_at=from_ms(row.expires_at),
        redeem_within=timedelta(milliseconds=row.redeem_within),
        state=RequestState(row.state),
        approved_at=optional_at(row.approved_at),
        redeem_by=optional_at(row.redeem_by),
        ended_at=optional_at(row.ended_at),
        ended_by=row.ended_by,
        note=row.note,
        lease_id=row.lease_id,
        redemption_id=row.redemption_id,
        tool_call=seal.reveal(row.tool_call, row.TABLE, "tool_call", row.id),
        plan=seal.reveal(row.plan, row.TABLE, "plan", row.id),
        votes=votes,
    )


def packed_request(request: AccessRequest) -> str:
    """What was asked, as it is kept: prompt, tool call and plan by their digests."""
    kept: dict[str, JsonValue] = {
        "request_id": request.request_id,
        "template": request.template,
        "task_id": request.task_id,
        "account": request.account,
        "environment": request.environment,
        "resource": request.resource,
        "ttl_us": request.ttl // _MICROSECOND,
        "parameters": dict(request.parameters),
        "step": request.step,
        "intent": request.intent,
        "reason": request.reason,
        "ticket": request.ticket,
        "prompt": text_digest(request.prompt),
        "tool_call": text_digest(request.tool_call),
        "plan": text_digest(request.plan),
        "recipient_public_key": request.recipient_public_key.hex(),
        "plan_id": request.plan_id,
        "delegation_id": request.delegation_id,
        "subject_public_key": request.subject_public_key,
        "wrap_us": None if request.wrap is None else request.wrap // _MICROSECOND,
    }
    return canonical_json(kept).decode()


def unpacked_request(kept: Mapping[str, Any]) -> AccessRequest:
    """What :func:`packed_request` kept. It has the digest of what was asked."""
    wrap = kept.get("wrap_us")
    digests = {name: kept[name] for name in ("prompt", "tool_call", "plan")}
    return AccessRequest(
        **{name: kept[name] for name in ("request_id", "template", "task_id", "account", "environment", "resource")},
        ttl=kept["ttl_us"] * _MICROSECOND,
        parameters=kept["parameters"],
        **{name: kept[name] for name in ("step", "intent", "reason", "ticket")},
        **{name: Digested(digest) if digest else "" for name, digest in digests.items()},
        recipient_public_key=bytes.fromhex(kept["recipient_public_key"]),
        plan_id=kept["plan_id"],
        delegation_id=kept["delegation_id"],
        subject_public_key=kept.get("subject_public_key", ""),  # absent from what was filed before there was one
        wrap=None if wrap is None else wrap * _MICROSECOND,
    )
