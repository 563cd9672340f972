"""Operations on suspensions, each inside one write transaction.

The order is the guarantee. The transaction that writes a suspension also moves to REVOKING what is being issued
under it, so that nothing in flight becomes ACTIVE; and no intent that it covers commits afterwards, because each
intent looks here in its own transaction. What is ACTIVE is ended in portions, so that a large suspension does
not hold up the writer; :func:`tend` goes on where a crash broke that off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.errors import Conflict, Denied, InvalidInput, NotFound, Reason, WrongState
from broker.lease.machine import Event, State
from broker.ports.leases import EndCause, Ended
from broker.ports.suspensions import Lifting, Members, NewSuspension, StillAlive
from broker.scope.canonical import JsonValue
from broker.stores.break_glass_ops import passes_over
from broker.stores.end_ops import CHUNK, read_pair
from broker.stores.moves import by_break_glass, move
from broker.stores.proof_ops import keep_word, word_told
from broker.stores.rows import LeaseRow, Raw
from broker.stores.suspension_rows import SuspensionRow, insert, read_suspension, suspension_of, unlifted, update
from broker.stores.times import from_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View
from broker.suspension.suspension import Kind, Lift, Subject, Suspension, suspended, trust_domain_of

# More than the RPCs that can be in flight at once by default, so that one transaction takes all that is being issued.
BEING_ISSUED = 2_000
# Of what is ACTIVE, in one transaction. Whoever is refused waits for the transaction that was begun before, and for the
# one that answers it: the last of many busy agents hears of it after two of these, not after all that lives is ended.
PORTION = 128
# Of the suspensions that are over, checked by one tick: each comes by again and again, and no tick pays for all.
LIFTED_PAGE = 64
# Later than every stored time: the first page starts here.
_AFTER_ALL = 2**62
# A place among what lives: behind this (holder, request id).
Place = tuple[str, str]
BEGINNING: Place = ("", "")


def check(view: View, tenant: str, subject: Subject, now: datetime) -> None:
    """Raises Denied (SUSPENDED) if one is in force that covers ``subject``. Else it costs a look at an empty index."""
    if view.row("any_unlifted", (tenant,))[0]:
        refuse_suspended(view, tenant, subject, now)


def refuse_suspended(view: View, tenant: str, subject: Subject, now: datetime) -> None:
    """The same, where something is known to be suspended."""
    for row in unlifted(view, tenant):
        found = suspension_of(row)
        if found.in_force(now) and found.covers(subject):
            raise suspended(found)


def suspend(tx: Transaction, new: NewSuspension, members: Members) -> tuple[Suspension, Ended]:
    """See LeaseStore.suspend: the first portion, with all that is being issued."""
    key = {"tenant": new.tenant, "author": new.author, "request_id": new.request_id}
    raw = tx.one("suspension_by_request", key)
    if raw is not None:
        return suspension_of(_repeated(read_suspension(raw, tx.seal), new)), Ended()
    row = SuspensionRow(
        tenant=new.tenant,
        id=new.id,
        kind=new.kind.value,
        value=new.value,
        reason=new.reason,
        author=new.author,
        author_name=new.author_name,
        request_id=new.request_id,
        request_digest=new.request_digest,
        created_at=to_ms(new.now),
        until=None if new.until is None else to_ms(new.until),
    )
    insert(tx, row)
    ended = end_portion(tx, row, members, new.author, new.now)
    until: JsonValue = row.until
    about: dict[str, JsonValue] = {"value": new.value, "until_ms": until, "attempts_ended": ended.attempts}
    _tell(tx, EventType.SUSPENDED, row, new.author, row.created_at, {**about, "reason": new.reason})
    return suspension_of(row), ended


def _repeated(row: SuspensionRow, new: NewSuspension) -> SuspensionRow:
    if row.trusted and row.request_digest != new.request_digest:
        raise Conflict(
            Reason.REQUEST_ID_REUSED,
            f"request id {row.request_id!r} already names suspension {row.id}, which was asked for with other content.",
            hint="Use a fresh request id for a new suspension.",
            metadata={"requestId": row.request_id, "suspensionId": row.id},
        )
    return row


def resume(tx: Transaction, lifting: Lifting) -> Suspension:
    """See LeaseStore.resume."""
    raw = tx.one("suspension_by_id", {"tenant": lifting.tenant, "id": lifting.id})
    if raw is None:
        raise NotFound(
            Reason.SUSPENSION_NOT_FOUND,
            f"there is no suspension {lifting.id!a}.",
            hint="`broker suspensions` lists them.",
            metadata={"suspensionId": lifting.id},
        )
    row = read_suspension(raw, tx.seal)
    if not row.trusted:
        return _resume_untrusted(tx, row, lifting)
    mine = (lifting.by, lifting.request_id)
    if mine in ((row.first_by, row.first_request_id), (row.lifted_by, row.lifted_request_id)):
        return suspension_of(row)
    _check_open(row, lifting.now)
    if suspension_of(row).needs_two and row.first_by is None:
        return _begin(tx, row, lifting)
    return _lift(tx, row, lifting)


def _resume_untrusted(tx: Transaction, row: SuspensionRow, lifting: Lifting) -> Suspension:
    """Two people, as for everything. The first is kept in memory alone: whoever changed the row could name one."""
    first = tx.first_lifts.get((row.tenant, row.id))
    if first is None:
        keep_word(tx, lifting)
        first = tx.first_lifts[row.tenant, row.id] = lifting
    if (first.by, first.request_id) == (lifting.by, lifting.request_id):
        _tell_begun(tx, row, lifting)
        return replace(suspension_of(row), first=Lift(first.by, first.name, first.reason, first.now))
    _note_first(row, first)
    return _lift(tx, row, lifting)


def _check_open(row: SuspensionRow, now: datetime) -> None:
    if suspension_of(row).in_force(now):
        return
    raise WrongState(
        Reason.SUSPENSION_ENDED,
        f"suspension {row.id} is over: ended by {row.lifted_name or 'its own time'}.",
        hint="`broker suspensions` shows what is still in force.",
        metadata={"suspensionId": row.id},
    )


def _begin(tx: Transaction, row: SuspensionRow, lifting: Lifting) -> Suspension:
    """The first of two people: noted, and everything stays as it is."""
    keep_word(tx, lifting)
    _note_first(row, lifting)
    update(tx, row)
    _tell_begun(tx, row, lifting)
    return suspension_of(row)


def _note_first(row: SuspensionRow, lifting: Lifting) -> None:
    row.first_by, row.first_name, row.first_reason = lifting.by, lifting.name, lifting.reason
    row.first_request_id, row.first_at = lifting.request_id, to_ms(lifting.now)


def _tell_begun(tx: Transaction, row: SuspensionRow, lifting: Lifting) -> None:
    _tell(tx, EventType.RESUME_BEGUN, row, lifting.by, to_ms(lifting.now), word_told(lifting))


def _lift(tx: Transaction, row: SuspensionRow, lifting: Lifting) -> Suspension:
    if row.first_by == lifting.by:
        raise Denied(
            Reason.SECOND_PERSON_REQUIRED,
            f"{row.first_name} has already said that suspension {row.id} shall end; a second person has to say so too.",
            hint=f"Have another person run: broker resume {row.id} --reason ...",
            metadata={"suspensionId": row.id, "first": row.first_name or ""},
        )
    keep_word(tx, lifting)
    row.lifted_by, row.lifted_name, row.lifted_reason = lifting.by, lifting.name, lifting.reason
    row.lifted_request_id, row.lifted_at = lifting.request_id, to_ms(lifting.now)
    about = {**word_told(lifting), "first": row.first_by, "untrusted_row": not row.trusted}
    row.trusted = True
    update(tx, row)
    _tell(tx, EventType.RESUMED, row, lifting.by, to_ms(lifting.now), about)
    return suspension_of(row)


# --------------------------------------------------------------------------- ending what lives


def end_portion(
    tx: Transaction, row: SuspensionRow, members: Members, actor: str, now: datetime, after: Place = BEGINNING
) -> Ended:
    """End what ``row`` covers: first all that is being issued, and of what is ACTIVE the next of ``PORTION``."""
    issuing = Ended()
    if after == BEGINNING:  # nothing of it comes to be afterwards
        issuing, _ = _end(tx, row, members, actor, now, State.ISSUING, BEGINNING, BEING_ISSUED)
    active, place = _end(tx, row, members, actor, now, State.ACTIVE, after, PORTION - issuing.attempts)
    return replace(issuing.plus(active), more=issuing.attempts + active.attempts >= PORTION, after=place)


def _end(
    tx: Transaction,
    row: SuspensionRow,
    members: Members,
    actor: str,
    now: datetime,
    state: State,
    after: Place,
    most: int,
) -> tuple[Ended, Place]:
    """Move up to ``most`` attempts in ``state`` to REVOKING; where it came to."""
    now_ms, connectors, ended = to_ms(now), set[str](), 0

    def end(raw: Raw) -> bool:
        nonlocal after
        attempt, lease = read_pair(raw, tx)
        if lease is not None:
            after = (lease.holder, lease.request_id)
        if _passed_over(tx, row, lease):
            return False
        connectors.add(attempt.connector)
        return move(tx, attempt, lease, Event.END, EndCause.SUSPENDED, now_ms, actor=actor)

    for query, parameters in _selections(tx, row, members, after):
        while ended < most:
            place = {"after_holder": after[0], "after_request": after[1], "limit": min(most - ended, CHUNK)}
            rows = tx.all(query, {"tenant": row.tenant, "state": state.value, **parameters, **place})
            if not rows:
                break
            # What could not be written is passed by, and ended when its own due time comes.
            ended += sum(tx.each(end, rows))
    return Ended(ended, frozenset(connectors)), after


def end_more(
    tx: Transaction, tenant: str, suspension_id: str, members: Members, actor: str, now: datetime, after: Place
) -> Ended:
    """A further portion of what a suspension covers, after the place where the one before came to."""
    raw = tx.one("suspension_by_id", {"tenant": tenant, "id": suspension_id})
    row = None if raw is None else read_suspension(raw, tx.seal)
    return Ended() if row is None or not row.trusted else end_portion(tx, row, members, actor, now, after)


def authors(view: View, tenant: str) -> list[tuple[str, str]]:
    """Of each suspension that was not lifted and whose row holds: its id, and who made it."""
    return [(row.id, row.author) for row in unlifted(view, tenant) if row.trusted]


_OF_KIND = {Kind.TEMPLATE: "template", Kind.CONNECTOR: "connector", Kind.ACCOUNT: "account"}
_ANY = {"template": "", "connector": "", "account": ""}


def _selections(
    view: View, row: SuspensionRow, members: Members, after: Place = BEGINNING
) -> Iterator[tuple[str, dict[str, str]]]:
    """The queries that together find what ``row`` covers, from ``after`` on."""
    kind, value = Kind(row.kind), row.value
    if kind is Kind.TASK:
        yield "suspended_of_task", {"task_id": value}
    elif kind is Kind.EVERYTHING:
        yield "suspended_of_kind", _ANY
    elif kind in _OF_KIND:
        yield "suspended_of_kind", {**_ANY, _OF_KIND[kind]: value}
    else:
        covers = _holds(kind, value, members)
        for (holder,) in sorted(view.all("living_holders", {"tenant": row.tenant})):
            if holder >= after[0] and covers(holder):
                yield "suspended_of_holder", {"holder": holder}


_NARROWED = {**_OF_KIND, Kind.TASK: "task"}


def still_alive(view: View, suspension: Suspension, members: Members) -> list[StillAlive]:
    """See LeaseStore.still_alive."""
    kind, value = suspension.kind, suspension.value
    asked = {"tenant": suspension.tenant, **_ANY, "task": ""}
    if kind in _NARROWED:
        asked[_NARROWED[kind]] = value
    everybody = kind in _NARROWED or kind is Kind.EVERYTHING or not suspension.trusted
    covers = (lambda holder: True) if everybody else _holds(kind, value, members)
    counted: dict[str, tuple[int, int]] = {}
    for holder, connector, attempts, last in view.all("suspended_alive", asked):
        if covers(holder):
            before, latest = counted.get(connector, (0, 0))
            counted[connector] = before + attempts, max(latest, last)
    return [StillAlive(name, count, from_ms(last)) for name, (count, last) in sorted(counted.items())]


def _holds(kind: Kind, value: str, members: Members) -> Callable[[str], bool]:
    match kind:
        case Kind.AGENT:
            return lambda holder: holder == value
        case Kind.TRUST_DOMAIN:
            return lambda holder: trust_domain_of(holder) == value
        case Kind.ENTRY:
            return lambda holder: members(holder)[0] == value
        case _:
            return lambda holder: members(holder)[1] == value


# --------------------------------------------------------------------------- by time, and after a crash


@dataclass(frozen=True, slots=True)
class Look:
    """What a tick looks at: all that is in force, and of what is over, which nobody can have changed, a page."""

    tenant: str
    after: str = ""  # the id of the last one of the page before
    limit: int = LIFTED_PAGE

    def over(self, view: View) -> list[SuspensionRow]:
        """The page, in the order of ids."""
        page = {"tenant": self.tenant, "after": self.after, "limit": self.limit}
        return [read_suspension(raw, view.seal) for raw in view.all("suspensions_lifted", page)]


def tend(tx: Transaction, look: Look, members: Members, now: datetime) -> Ended:
    """See LeaseStore.tend_suspensions."""
    tenant, now_ms, tampered = look.tenant, to_ms(now), set[str]()
    for row in look.over(tx):
        if not row.trusted:
            # Found from now on where what is in force is looked for; if only its end was made up, its MAC then holds.
            tampered.add(row.id)
            tx.run("quarantine_suspension", {"tenant": row.tenant, "id": row.id})
    for row in unlifted(tx, tenant):
        if not row.trusted:
            tampered.add(row.id)
        elif row.until is not None and row.until <= now_ms:
            row.lifted_by, row.lifted_name, row.lifted_at = BROKER, "its own time", row.until
            update(tx, row)
            _tell(tx, EventType.SUSPENSION_EXPIRED, row, BROKER, now_ms, {"until_ms": row.until})
    ended = Ended(tampered=frozenset(tampered))
    for row in unlifted(tx, tenant):
        if row.trusted and not ended.more:
            ended = ended.plus(end_portion(tx, row, members, row.author, now))
    return ended


def tampered_event(tenant: str, suspension_id: str) -> AuditEvent:
    """The alarm about a row that fails its MAC."""
    about: dict[str, JsonValue] = {"suspension": suspension_id, "untrusted_row": True}
    return AuditEvent(EventType.SUSPENSION_TAMPERED, BROKER, Vouch.BROKER, tenant=tenant, data=about)


def needs_tending(view: View, look: Look, members: Members, now: datetime) -> tuple[bool, str]:
    """Whether :func:`tend` would change anything, told by reading alone; and where the next page begins."""
    over, now_ms = look.over(view), to_ms(now)
    following = over[-1].id if over else ""
    if not all(row.trusted for row in over):
        return True, following
    for row in unlifted(view, look.tenant):
        if not row.trusted or (row.until is not None and row.until <= now_ms) or _any_living(view, row, members):
            return True, following
    return False, following


def _any_living(view: View, row: SuspensionRow, members: Members) -> bool:
    first = {"tenant": row.tenant, "after_holder": "", "after_request": "", "limit": CHUNK}
    return any(
        not _passed_over(view, row, read_pair(raw, view)[1])
        for query, also in _selections(view, row, members)
        for state in (State.ISSUING, State.ACTIVE)
        for raw in view.all(query, {**first, **also, "state": state.value})
    )


def _passed_over(view: View, row: SuspensionRow, lease: LeaseRow | None) -> bool:
    """Whether people let the lease be granted although this was suspended (break-glass)."""
    if lease is None or not by_break_glass(lease.request_id):
        return False
    return passes_over(view, lease.tenant, lease.id, row.id)


def _tell(
    tx: Transaction, event: EventType, row: SuspensionRow, actor: str, now_ms: int, data: dict[str, JsonValue]
) -> None:
    about: dict[str, JsonValue] = {"suspension": row.id, "kind": row.kind, "value": row.value, **data}
    tx.audit(AuditEvent(event, actor, Vouch.BROKER, tenant=row.tenant, data=about), now_ms)


def page(view: View, tenant: str, ended: bool, after: str, limit: int) -> list[Suspension]:
    """See LeaseStore.suspensions."""
    after_ms = _AFTER_ALL
    if after:
        raw = view.one("suspension_by_id", {"tenant": tenant, "id": after})
        if raw is None:
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "the page token names no suspension.",
                hint="Start again from the first page.",
            )
        after_ms = read_suspension(raw, view.seal).created_at
    asked = {"tenant": tenant, "ended": ended, "after_ms": after_ms, "after_id": after, "limit": limit}
    return [suspension_of(read_suspension(raw, view.seal)) for raw in view.all("suspensions_page", asked)]
