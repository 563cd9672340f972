"""What a walk through living leases remembers of the holder that it is at.

Of each lease a review is told what its holder has beside it, and the record of its intent. A holder's leases fill many
pages, and both would be looked for among all that the holder has, for each page anew. So they are looked for once, when
the walk comes to the holder; for each further page only what its trail has news of is read again. Whatever begins or
ceases to live leaves a record of its holder in the same transaction, so what is remembered is what the snapshot of the
page holds, and nothing older: grants and ends go on beside a walk, and each page counts those that were committed.

Memory: of one holder at a time, an id, a number and what is shared for each of its living leases (about 300 bytes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from broker.audit.event import EventType
from broker.audit.record import Record, decode
from broker.errors import Tampered
from broker.policy.facts import names_of_grant
from broker.ports.intents import Holdings
from broker.stores.holding_ops import NOBODYS, Kind
from broker.stores.rows import LeaseRow, read_lease
from broker.stores.view import Raw, View

# Records read at a time.
PORTION = 200
_AFTER_ALL = 2**62
# An intent may be recorded this long before the attempt that was made by it, should the clock have been set.
_SLACK_MS = 3_600_000
# As it stands in a record's canonical bytes: what lacks it need not be decoded.
_INTENT = f'"type":"{EventType.LEASE_INTENT}"'.encode()


class WalkedHolder:
    """One holder's living leases: of what kind each is, and where in the trail the record of its latest intent is."""

    def __init__(self, view: View, tenant: str, holder: str) -> None:
        self._key = {"tenant": tenant, "holder": holder}
        self._kinds: dict[str, Kind | None] = {}  # by lease; None: its row fails its MAC
        self._counts = Counter[Kind | None]()
        self._intents: dict[str, int] = {}  # by lease
        self._upto: int = view.row("holder_event_before", {**self._key, "upto": _AFTER_ALL})[0]
        self._find_intents(view, oldest=self._read_living(view) - _SLACK_MS)

    def is_of(self, tenant: str, holder: str) -> bool:
        """Whether it is this one's."""
        return self._key == {"tenant": tenant, "holder": holder}

    def follow(self, view: View) -> None:
        """Take in what has become of the holder's leases meanwhile."""
        while records := view.all("holder_news", {**self._key, "after": self._upto, "limit": PORTION}):
            # As they are now: what became of one twice is the same twice.
            for lease_id in {lease_id for _, lease_id, *_ in records}:
                self._look_at(view, lease_id)
            for record in records:
                self._note_intent(view, record)
            self._upto = records[-1][0]

    def beside(self, lease_id: str) -> Holdings | None:
        """The same as :func:`broker.stores.holding_ops.holdings` of its request. None: it cannot be told."""
        if self._counts[None]:
            return None
        own = self._kinds.get(lease_id)
        others = [kind for kind, count in self._counts.items() if kind and count > (kind == own)]
        return Holdings(
            frozenset(name for kind in others for name in names_of_grant(*kind)), len(self._kinds) - (own is not None)
        )

    def intent(self, view: View, lease_id: str, attempt_id: str) -> Record | None:
        """The record of the intent of an attempt, which is its lease's latest; None: there is none that is ours."""
        seq = self._intents.get(lease_id)
        found = None if seq is None else view.one("audit_row", (seq,))
        record = None if found is None else _intent_in(view, found)
        return record if record is not None and record.attempt_id == attempt_id else None

    def _read_living(self, view: View) -> int:
        """All of them; when the oldest one was made (ms)."""
        shared: dict[Kind, Kind] = {}

        def small(raw: Raw) -> tuple[str, Kind | None, int]:
            row = read_lease(raw, view.seal)
            kind = _kind(row)
            return row.id, kind and shared.setdefault(kind, kind), row.created_at

        living = view.made("holdings", {**self._key, "request_id": NOBODYS}, small)
        self._kinds = {lease_id: kind for lease_id, kind, _ in living}
        self._counts = Counter(self._kinds.values())
        return min((created_at for *_, created_at in living), default=_AFTER_ALL)

    def _find_intents(self, view: View, oldest: int) -> None:
        """From the newest record back, and only until those of all that lives are found."""
        before = _AFTER_ALL
        while len(self._intents) < len(self._kinds):
            records = view.all("holder_trail", {**self._key, "before": before, "limit": PORTION})
            for record in records:
                if record[1] not in self._intents:
                    self._note_intent(view, record)
            if len(records) < PORTION or _written_before(records[-1][2], oldest):
                return
            before = records[-1][0]

    def _look_at(self, view: View, lease_id: str) -> None:
        raw = view.one("lease_by_id", {"tenant": self._key["tenant"], "lease_id": lease_id})
        row = None if raw is None else read_lease(raw, view.seal)
        if lease_id in self._kinds:
            self._counts[self._kinds.pop(lease_id)] -= 1
        if row is None or row.ended_at is not None:
            self._intents.pop(lease_id, None)
            return
        self._kinds[lease_id] = kind = _kind(row)
        self._counts[kind] += 1

    def _note_intent(self, view: View, record: Raw) -> None:
        if record[1] in self._kinds and _intent_in(view, record) is not None:
            self._intents[record[1]] = record[0]


def _kind(row: LeaseRow) -> Kind | None:
    return (row.template, row.access, row.environment) if row.trusted else None


def _intent_in(view: View, row: Sequence[object]) -> Record | None:
    """The record of an intent in a row of the trail, if it is one and ours."""
    _, _, body, _, mac, key_id = row
    if not isinstance(body, bytes) or _INTENT not in body:
        return None
    try:
        record = decode(body)
        ours = view.seal.holds_record(bytes.fromhex(record.prev), body, mac, key_id)
    except (Tampered, ValueError):
        return None
    return record if ours and record.type == EventType.LEASE_INTENT else None


def _written_before(body: bytes, ms: int) -> bool:
    """Whether the search can end here. A damaged record does not end it."""
    try:
        return decode(body).at_ms < ms
    except Tampered:
        return False
