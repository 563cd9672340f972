"""The ledger's invariants, checked from outside: read-only, in one snapshot, beside a running broker or on a copy.

Holds one row in memory; what the trail says of each attempt goes into a temporary table on disk, so that the work grows
with the ledger and memory does not. Each violation names the row. What needs the deploy set (quorums, templates) or the
upstream (whether it is really gone) cannot be checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from broker.errors import Reason, Tampered
from broker.ports.keys import KeyRing
from broker.stores.access_rows import vote_sealed
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Offline, Where
from broker.stores.queries import migrations
from broker.stores.rows import Raw, read_task
from broker.stores.seal import RowSeal

# By the name of the query: what must be true.
INVARIANTS = {
    "broken_bounded_life": "whatever may be alive has a due time, at its expiry at the latest",
    "broken_finite": "no life without a finite end",
    "broken_intent_first": "each attempt's intent is in the trail before anything else of it",
    "broken_told": "what became of each attempt is in the trail",
    "broken_within_parent": "a part of a lease lives and lasts no longer than the lease",
    "broken_approvals": "each approval has a yes, and is used once",
    "broken_suspension": "nothing is begun while everything is suspended",
    "broken_final": "what is over stays so",
    "broken_once": "no two living leases of one request, no two active attempts of one lease",
    "broken_retried": "whatever is owed an end is looked at by the revoker",
}
_SEALED = {
    "every_lease": "leases",
    "every_attempt": "attempts",
    "every_suspension": "suspensions",
    "every_access_request": "access_requests",
    "every_plan": "plans",
    "every_delegation": "delegations",
    "every_origin": "lease_origins",
    "every_accepted_deploy": "accepted_deploy",
    "every_recovery": "recoveries",
    "every_fresh_login": "fresh_logins",
    "every_mark": "marks",
    "every_orphan": "upstream_orphans",
    "every_canary_measurement": "canary_measurements",
    "every_allocation": "account_allocations",
    "every_high_water": "high_water",
    "every_deploy_set": "deploy_sets",
}
MACS = "every row that a grant may rest on bears the broker's MAC"
CHAIN = "the chain of the audit trail is whole"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is not as it must be."""

    invariant: str
    where: str  # table or kind, tenant and id
    detail: str


class LedgerChecks(AuditReader):
    """A context manager, like the reader; :meth:`violations` goes through everything once."""

    def __init__(self, where: Where | Offline) -> None:
        """As for the reader; also Tampered (SCHEMA_VERSION) for a ledger of an older release."""
        super().__init__(where)
        found = self._ledger.schema.version
        if found < len(migrations()):
            self._ledger.close()
            raise Tampered(
                Reason.SCHEMA_VERSION,
                f"{self.shown} has schema {found}; this release checks schema {len(migrations())}.",
                hint="Check it with the release that wrote it.",
            )

    def violations(self, keys: KeyRing | None) -> Iterator[Violation]:
        """Every violation. Without ``keys``, MACs are not checked."""
        find = keys.find if keys is not None else None
        yield from (Violation(CHAIN, f"audit record {each.sequence}", str(each)) for each in self.verify(find))
        if keys is not None:
            yield from self._unsealed(RowSeal(keys))
        for name in ("make_events", "index_events", "index_suspensions", "index_requests"):
            self._ledger.fetch(name)
        for name, invariant in INVARIANTS.items():
            for tenant, row_id, detail in self._ledger.stream(name):
                yield Violation(invariant, f"{tenant}/{row_id}", str(detail))

    def _unsealed(self, seal: RowSeal) -> Iterator[Violation]:
        yield from self._failing("every_task", "tasks", lambda raw: read_task(raw, seal).trusted)
        yield from self._failing("every_vote", "access_votes", lambda raw: _vote_holds(raw, seal))
        for name, table in _SEALED.items():
            holds = _holding(seal, table)
            yield from self._failing(name, table, holds)

    def _failing(self, name: str, table: str, holds: Callable[[Raw], bool]) -> Iterator[Violation]:
        try:
            for raw in self._ledger.stream(name):
                if not holds(raw):
                    yield Violation(MACS, f"{table} {raw[0]}/{raw[1]}", "it fails its MAC")
        except self._ledger.errors as error:
            yield Violation(MACS, table, f"it cannot be read: {error}")


def _vote_holds(raw: Raw, seal: RowSeal) -> bool:
    *values, mac, key_id = raw
    return seal.holds("access_votes", vote_sealed(values), mac, key_id)


def _holding(seal: RowSeal, table: str) -> Callable[[Raw], bool]:
    return lambda raw: seal.holds(table, raw[:-2], raw[-2], raw[-1])
