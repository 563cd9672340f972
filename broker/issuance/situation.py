"""What the ledger knows around one request, read before policy decides on it.

The one place that puts a :class:`~broker.policy.facts.Situation` together. Each part is read only where a
policy of the set in force looks at it, because a read that nobody needs is paid by every grant.
"""

from __future__ import annotations

from broker.issuance.caller import Caller
from broker.policy.facts import NOTHING_KNOWN, Situation
from broker.ports import LeaseStore
from broker.scope.request import AccessRequest


class Situations:
    """Reads situations from the ledger."""

    def __init__(self, store: LeaseStore) -> None:
        self._store = store

    async def read(self, caller: Caller, request: AccessRequest) -> Situation:
        """The situation of ``request`` at ``caller.now``."""
        return NOTHING_KNOWN
