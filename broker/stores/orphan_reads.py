"""What the ledger says of what an upstream lists; each function is one consistent read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from broker.errors import InvalidInput, Reason
from broker.lease.machine import State, lease_state
from broker.ports.connectors import Carried
from broker.ports.orphans import HeldUpstream, Orphan
from broker.scope.canonical import canonical_json
from broker.stores.orphan_rows import orphan_of, read_orphan
from broker.stores.rows import AttemptRow, read_attempt
from broker.stores.times import to_ms
from broker.stores.view import View

# Later than every stored time: the first page starts here.
_AFTER_ALL = 2**62


def held(view: View, tenant: str, carried: Sequence[Carried]) -> Mapping[str, State]:
    """See OrphanStore.held."""
    by_name: dict[str, list[AttemptRow]] = {}
    for row in _named(view, [each.name for each in carried]):
        by_name.setdefault(row.upstream or "", []).append(row)
    ids = [each.attempt_id for each in carried if each.attempt_id is not None]
    by_id = {row.id: row for row in _identified(view, tenant, ids)}
    found = {}
    for each in carried:
        rows = [*by_name.get(each.name, []), *([by_id[each.attempt_id]] if each.attempt_id in by_id else [])]
        if rows:
            found[each.name] = lease_state([State(row.state) for row in rows])
    return found


def _named(view: View, names: Sequence[str]) -> Iterable[AttemptRow]:
    connectors = [row[0] for row in view.all("every_connector", {})]
    asked = {"connectors": canonical_json(connectors).decode(), "names": canonical_json(names).decode()}
    return _trusted(view, "attempts_by_name", asked)


def _identified(view: View, tenant: str, ids: Sequence[str]) -> Iterable[AttemptRow]:
    return _trusted(view, "attempts_by_ids", {"tenant": tenant, "ids": canonical_json(ids).decode()})


def _trusted(view: View, query: str, asked: Mapping[str, object]) -> list[AttemptRow]:
    return [row for raw in view.all(query, asked) if (row := read_attempt(raw, view.seal)).trusted]


def active(view: View, connector: str, now: datetime) -> list[HeldUpstream]:
    """See OrphanStore.active_attempts."""
    asked = {"connector": connector, "now": to_ms(now)}
    found = view.made("attempts_active", asked, lambda raw: _held_upstream(read_attempt(raw, view.seal)))
    return [each for each in found if each is not None]


def _held_upstream(row: AttemptRow) -> HeldUpstream | None:
    if not row.trusted:
        return None
    return HeldUpstream(sys.intern(row.tenant), row.lease_id, row.id, row.number, row.upstream or "")


def listed(view: View, tenant: str, after: str, limit: int, *, living_only: bool) -> list[Orphan]:
    """See OrphanStore.orphans. Rows that fail their MAC say nothing and are left out."""
    before_ms = _AFTER_ALL
    if after:
        raw = view.one("orphan_by_id", {"tenant": tenant, "id": after})
        if raw is None:
            raise InvalidInput(
                Reason.PAGE_TOKEN_INVALID,
                "the page token names nothing that was found.",
                hint="Start again from the first page.",
            )
        before_ms = read_orphan(raw, view.seal).found_at
    asked = {"tenant": tenant, "living": int(living_only), "before_ms": before_ms, "before_id": after, "limit": limit}
    rows = (read_orphan(raw, view.seal) for raw in view.all("orphans_listed", asked))
    return [orphan_of(row) for row in rows if row.trusted]
