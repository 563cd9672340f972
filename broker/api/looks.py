"""Telling the trail what people look at: one place for every method that shows something (``authorization.LOOKS``).

Told after the answer is made and before it goes out. That it cannot be told changes no answer: when the ledger cannot
be written, people have to look at what is wrong; the log has it then.
"""

from __future__ import annotations

import structlog
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from broker.api import authorization
from broker.api.redaction import sensitive_fields
from broker.errors import BrokerError
from broker.issuance.looks import About, LookBudget, look
from broker.ports.clock import Clock
from broker.ports.lease_store import LeaseStore

log = structlog.get_logger("broker.api")

# What a text of a request is cut to; ids are never longer.
_LONGEST = 200
# Where somebody is in a list, and what only names the call.
_NOT_TOLD = frozenset({"page_token", "request_id"})


class Looks:
    """For the door. ``budget`` bounds what is written."""

    def __init__(self, store: LeaseStore, budget: LookBudget, clock: Clock, tenant: str) -> None:
        self._store = store
        self._budget = budget
        self._clock = clock
        self._tenant = tenant

    async def tell(self, who: str, method: str, request: Message) -> None:
        """``who`` is being shown what ``request`` asked for, if that is what ``method`` does."""
        if method not in authorization.LOOKS:
            return
        now, about = self._clock.now(), _about(request)
        if not self._budget.admit(who, method, about, now):
            return
        try:
            await self._store.append([look(self._tenant, who, method, about)], now)
        except BrokerError as lost:
            log.error("a look could not be recorded", method=method, principal=who, reason=lost.reason)


def _about(request: Message) -> About:
    """The texts that say what is looked at: ids and filters."""
    left_out = _NOT_TOLD | sensitive_fields(request.DESCRIPTOR)
    return {
        field.name: value[:_LONGEST]
        for field, value in request.ListFields()
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and field.name not in left_out
    }
