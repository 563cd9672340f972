"""Break-glass inside the intent transaction: may this use be, what it uses up, and its row beside the lease's.

Of two uses at once where the rate allows one, of a use and a review, of two uses with one code: the writer has them
one after the other, and each is decided on what those before it left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.breakglass.reviews import OVERRIDES_FOR_REVIEW, OVERRIDES_FOR_SUSPENSION, OverrideKind, Use, blocked_groups
from broker.breakglass.rules import BY_CODE
from broker.errors import Conflict, Denied, Exhausted, Reason, WrongState
from broker.ports.break_glass import NewUse
from broker.ports.intents import Intent
from broker.ports.proofs import ProofRecord
from broker.scope.canonical import JsonValue
from broker.stores import break_glass_rows as rows
from broker.stores.break_glass_rows import CodeRow, OverrideRow, UseRow, listed, trusted, use_of
from broker.stores.proof_ops import keep_proof
from broker.stores.rows import LeaseRow
from broker.stores.seal import tampered
from broker.stores.suspension_rows import suspension_of, unlifted
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Subject, suspended

# All uses this young are looked at, reviewed or not, so that a row whose review somebody else wrote is noticed.
_LOOKED_AT = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Admitted:
    """What a use rests on, and uses up."""

    overrides: tuple[OverrideRow, ...] = ()
    code: CodeRow | None = None
    proof: ProofRecord | None = None  # of a login that no earlier try of the same use has used up


def passed_suspensions(
    view: View, intent: Intent, new: NewUse, subject: Subject, lease: LeaseRow | None
) -> tuple[OverrideRow, ...]:
    """The words that pass over each suspension that covers ``subject``. Raises Denied (SUSPENDED) where one is missing.

    ``lease`` is the latest that has the request id: what it was granted over, a retry of it is.
    """
    used: list[OverrideRow] = []
    for row in unlifted(view, intent.tenant):
        found = suspension_of(row)
        if not (found.in_force(intent.now) and found.covers(subject)):
            continue
        if lease is not None and lease.ended_at is None and passes_over(view, lease.tenant, lease.id, found.id):
            continue
        needed = OVERRIDES_FOR_REVIEW if found.needs_two else OVERRIDES_FOR_SUSPENSION
        words = _words(view, intent, new, OverrideKind.SUSPENSION, found.id)
        if len(words) < needed:
            refusal = suspended(found)
            refusal.hint = (
                f"{_told(words, needed)} Each runs: broker break-glass override suspension {found.id}"
                f" --for {new.person} --reason ..."
            )
            raise refusal
        used.extend(words)
    return tuple(used)


def granted_before(intent: Intent, passed: Sequence[OverrideRow]) -> Denied:
    """The refusal of a retry of what was granted before it was suspended: that ended it. A word is for another use."""
    return Denied(
        Reason.SUSPENDED,
        f"request id {intent.request.request_id!r} was used before {passed[0].subject} began, which ends what it got.",
        hint="Break glass anew, with a fresh request id: the word that was given passes over the suspension then.",
        metadata={"requestId": intent.request.request_id, "suspensionId": passed[0].subject},
    )


def check(view: View, intent: Intent, new: NewUse, retried: LeaseRow | None) -> Admitted:
    """Whether the use may be, beyond what every intent is held to. Writes nothing.

    Raises Denied (BREAK_GLASS_BLOCKED), Exhausted (BREAK_GLASS_RATE), WrongState
    (BREAK_GLASS_CODE_SPENT), Denied (BREAK_GLASS_CODE_OF_ANOTHER), Tampered. A retry of a living lease is held to being
    the same person's, and to no more: it was admitted before.
    """
    if retried is not None:
        row = find_row(view, intent.tenant, retried.id)
        if row is None or row.person != new.person:
            raise Conflict(
                Reason.REQUEST_ID_REUSED,
                f"request id {intent.request.request_id!r} already names lease {retried.id}, which is another's.",
                hint="Use a fresh request id.",
                metadata={"requestId": intent.request.request_id, "leaseId": retried.id},
            )
        return Admitted(proof=None if new.proof is None or new.proof.digest == row.proof else new.proof)
    since = to_ms(intent.now - max(_LOOKED_AT, new.per))
    young = [
        trusted(UseRow, raw, view.seal) for raw in view.all("uses_since", {"tenant": intent.tenant, "since": since})
    ]
    _check_rate(intent, new, young)
    overdue = unreviewed(view, intent.tenant, to_ms(intent.now))
    blocked = blocked_groups([*map(use_of, young), *overdue], new.groups, intent.now)
    words = [word for group, lease in blocked.items() for word in _passed(view, intent, new, group, lease)]
    mine = (new.person, intent.request.request_id)
    tried = {row.proof for row in young if (row.person, row.request_id) == mine}
    proof = None if new.proof is None or new.proof.digest in tried else new.proof
    return Admitted(tuple(words), _code(view, intent, new), proof)


def record(tx: Transaction, intent: Intent, new: NewUse, admitted: Admitted) -> None:
    """Write the use beside its lease, and use up what it rests on."""
    lease_id, now_ms = intent.lease_id, to_ms(intent.now)
    use_proof(tx, intent, admitted)
    for word in admitted.overrides:
        word.used_by = lease_id
        rows.update(tx, word)
    if admitted.code is not None:
        admitted.code.used_by, admitted.code.used_at = lease_id, now_ms
        rows.update(tx, admitted.code)
    overrode = sorted({f"{word.kind} {word.subject}" for word in admitted.overrides})
    row = UseRow(
        tenant=intent.tenant,
        lease_id=lease_id,
        task_id=intent.request.task_id,
        template=intent.scope.template,
        person=new.person,
        person_name=new.person_name,
        for_agent=new.for_agent,
        owner=intent.owner if new.for_agent else "",
        groups=listed(sorted(new.groups)),
        reason=new.reason,
        incident=new.incident,
        how=new.how,
        proof="" if new.proof is None else new.proof.digest,
        code_id=new.code_id,
        request_id=intent.request.request_id,
        told=listed(person for person, _ in new.told),
        overrode=listed(overrode),
        created_at=now_ms,
        review_due=to_ms(new.review_due),
    )
    rows.insert(tx, row)
    about: dict[str, JsonValue] = {
        "account": intent.scope.account,
        "environment": intent.scope.environment,
        "resource": intent.scope.resource,
        "access": intent.scope.access.value,
        "expires_ms": to_ms(intent.expires_at),
        "approvals_passed_over": list(new.approvals),
        "gates_passed_over": list(new.gates),
        "overrides": [{"kind": word.kind, "subject": word.subject, "by": word.by} for word in admitted.overrides],
        "told": [{"person": person, "name": name} for person, name in new.told],
    }
    tell(tx, EventType.BREAK_GLASS_USED, row, new.person, now_ms, about)
    if new.how == BY_CODE:
        tell(tx, EventType.BREAK_GLASS_CODE_USED, row, new.person, now_ms, {"code": new.code_id})


def use_proof(tx: Transaction, intent: Intent, admitted: Admitted) -> None:
    """Use the login up. Raises Denied (FRESH_LOGIN_USED) for one that was for another use."""
    if admitted.proof is not None:
        keep_proof(tx, intent.tenant, admitted.proof, to_ms(intent.now))


def tell(tx: Transaction, event: EventType, row: UseRow, actor: str, now_ms: int, data: dict[str, JsonValue]) -> None:
    """Record what happened to a use; every such event says whose it is and why, so that it can be read by itself."""
    about: dict[str, JsonValue] = {
        "person": row.person,
        "person_name": row.person_name,
        "for_agent": row.for_agent,
        "template": row.template,
        "groups": list(rows.read_list(row.groups)),
        "reason": row.reason,
        "incident": row.incident,
        "authenticated_by": row.how,
        "fresh_login": row.proof,
        "review_due_ms": row.review_due,
        **data,
    }
    key = {"tenant": row.tenant, "task_id": row.task_id, "lease_id": row.lease_id}
    # No holder: it is not one of the lease's own events, which its agent follows.
    tx.audit(AuditEvent(event, actor, Vouch.BROKER, **key, data=about), now_ms)


def find_row(view: View, tenant: str, lease_id: str) -> UseRow | None:
    """The use that a lease is; None for one that is none. Raises Tampered."""
    raw = view.one("use_of_lease", (tenant, lease_id))
    return None if raw is None else trusted(UseRow, raw, view.seal)


def unreviewed(view: View, tenant: str, due_ms: int) -> list[Use]:
    """Uses that nobody has reviewed, due by then. Raises Tampered for a row that fails its MAC."""
    found = view.all("uses_unreviewed", {"tenant": tenant, "due": due_ms})
    return [use_of(trusted(UseRow, raw, view.seal)) for raw in found]


def passes_over(view: View, tenant: str, lease_id: str, suspension_id: str) -> bool:
    """Whether a lease was granted over this suspension, by people's words. False for a row that fails its MAC."""
    raw = view.one("use_of_lease", (tenant, lease_id))
    row = None if raw is None else rows.sound(UseRow, raw, view.seal)
    return row is not None and f"{OverrideKind.SUSPENSION.value} {suspension_id}" in rows.read_list(row.overrode)


def _check_rate(intent: Intent, new: NewUse, young: Sequence[UseRow]) -> None:
    since = to_ms(intent.now - new.per)
    mine = (new.person, intent.request.request_id)
    for group in sorted(new.groups):
        counted = [
            row
            for row in young
            if row.created_at > since
            and not row.void
            and group in rows.read_list(row.groups)
            and (row.person, row.request_id) != mine
        ]
        if len(counted) >= new.max_uses:
            wait = (min(row.created_at for row in counted) - since) / 1000
            raise Exhausted(
                Reason.BREAK_GLASS_RATE,
                f"{group} has broken glass {len(counted)} times in {new.per.total_seconds():g} s; the template allows"
                f" {new.max_uses}.",
                hint="Page another group that the template pre-authorises, or ask for approval.",
                metadata={"group": group, "uses": str(len(counted)), "maxUses": str(new.max_uses)},
                retry_after=wait,
            )


def _passed(view: View, intent: Intent, new: NewUse, group: str, lease_id: str) -> tuple[OverrideRow, ...]:
    """The two words that pass over the block of ``group``."""
    words = _words(view, intent, new, OverrideKind.REVIEW, group)
    if len(words) >= OVERRIDES_FOR_REVIEW:
        return words
    raise Denied(
        Reason.BREAK_GLASS_BLOCKED,
        f"the review of {lease_id} is overdue, so {group} cannot break glass.",
        hint=f"Somebody else reviews it: broker break-glass review {lease_id} --findings ...; or two other people each"
        f" run: broker break-glass override review {group} --for {new.person} --reason ...",
        metadata={"group": group, "leaseId": lease_id, "overrides": str(len(words))},
    )


def _words(view: View, intent: Intent, new: NewUse, kind: OverrideKind, subject: str) -> tuple[OverrideRow, ...]:
    """The words that are good now: one of each person who is still there."""
    now_ms, by = to_ms(intent.now), dict[str, OverrideRow]()
    for row in unused_words(view, intent.tenant, new.person):
        if (row.kind, row.subject) == (kind, subject) and now_ms < row.expires_at and new.enabled(row.by):
            by.setdefault(row.by, row)
    return tuple(by.values())


def unused_words(view: View, tenant: str, person: str) -> list[OverrideRow]:
    """What others have said that ``person`` may pass over, and nothing has used. Raises Tampered."""
    found = view.all("overrides_unused", {"tenant": tenant, "person": person})
    return [trusted(OverrideRow, raw, view.seal) for raw in found]


def _code(view: View, intent: Intent, new: NewUse) -> CodeRow | None:
    if new.how != BY_CODE:
        return None
    row = find_code(view, intent.tenant, new.code_id)
    if row is None:
        raise tampered(CodeRow.TABLE, new.code_id)  # it was there when its secret was compared
    if row.person != new.person:
        raise Denied(
            Reason.BREAK_GLASS_CODE_OF_ANOTHER,
            f"code {row.id} names another person than {new.person}.",
            hint="Use your own; if this one was opened by mistake: broker break-glass codes revoke " + row.id,
            metadata={"codeId": row.id},
        )
    check_spendable(row, to_ms(intent.now))
    return row


def find_code(view: View, tenant: str, code_id: str) -> CodeRow | None:
    """A code's row; None where there is none. Raises Tampered."""
    raw = view.one("code_by_id", {"tenant": tenant, "id": code_id})
    return None if raw is None else trusted(CodeRow, raw, view.seal)


def check_spendable(row: CodeRow, now_ms: int) -> None:
    """Raises WrongState (BREAK_GLASS_CODE_SPENT) for a code that was used or revoked, or has expired."""
    used, revoked = row.used_by is not None, row.revoked_at is not None
    if not used and not revoked and now_ms < row.expires_at:
        return
    told = "was used" if used else "was revoked" if revoked else "has expired"
    raise WrongState(
        Reason.BREAK_GLASS_CODE_SPENT,
        f"code {row.id} {told}.",
        hint="Take the next code.",
        metadata={"codeId": row.id},
    )


def _told(words: Sequence[OverrideRow], needed: int) -> str:
    said = f" ({', '.join(word.by_name for word in words)} said so)" if words else ""
    other = "another person" if needed == 1 else f"{needed} other people"
    return f"Break-glass passes over it by the word of {other}{said}."
