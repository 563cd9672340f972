"""What the ledger knows around one request, read before policy decides on it.

The one place that puts a :class:`~broker.policy.facts.Situation` together. Each part is read only where a
policy of the set in force looks at it, because a read that nobody needs is paid by every grant.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from broker.errors import BrokerError, NotFound
from broker.identity.behalf import person_behind
from broker.issuance.behind import Humans
from broker.issuance.caller import Caller
from broker.issuance.citations import Citations
from broker.policy.facts import Situation
from broker.ports.intents import Seen
from broker.ports.ledger import Ledger
from broker.scope.request import AccessRequest

_HOLDINGS = frozenset({"active_grants", "active_count"})


class Situations:
    """Reads situations from the ledger."""

    def __init__(self, store: Ledger) -> None:
        self._store = store
        self._citations = Citations(store)
        self._behind = Humans(store)

    async def read(self, caller: Caller, request: AccessRequest) -> Situation:
        """The situation of ``request`` at ``caller.now``.

        Raises what a citation that does not cover it is refused with, Denied (ON_BEHALF_OF_NOBODY) where its task acts
        for somebody who may have nothing done any more, and Tampered where the ledger is not to be believed.
        """
        looked_at = _looked_at(caller, request)
        cited = await self._citations.situation(caller, request)
        human = await self._behind.human(caller, request.task_id)
        if human is not None:
            cited = replace(
                cited, on_behalf_of=person_behind(human.issuer, human.subject, caller.deploy.people, caller.now)
            )
        situation = await self._look(caller, request, looked_at, cited)
        if caller.deploy.shadow is not None and request.template in caller.deploy.templates:
            more = caller.deploy.shadow.reads(caller.deploy.templates[request.template].access) - looked_at
            # What only shadow policies look at must not refuse anything, not even by being unreadable.
            with contextlib.suppress(BrokerError):
                situation = await self._look(caller, request, more, situation)
        return situation

    async def _look(
        self, caller: Caller, request: AccessRequest, looked_at: frozenset[str], known: Situation
    ) -> Situation:
        if "task_type" in looked_at:
            known = replace(known, task_type=await self._task_type(caller, request))
        if _HOLDINGS & looked_at:
            held = await self._store.holdings(caller.tenant, caller.id, request.request_id)
            known = replace(known, active_grants=held.grants, active_count=held.count)
        if "pending_count" in looked_at:
            pending = await self._store.pending_access_requests(caller.tenant, caller.id)
            known = replace(known, pending_count=pending)
        return known

    async def _task_type(self, caller: Caller, request: AccessRequest) -> str:
        """Empty, too, for a task that is not there or not the caller's: the intent refuses both in the same words."""
        try:
            task = await self._store.get_task(caller.tenant, request.task_id)
        except NotFound:
            return ""
        return task.task_type if caller.id in task.participants else ""


def _looked_at(caller: Caller, request: AccessRequest) -> frozenset[str]:
    """What policies look at of such a request; nothing where its template is not there, which is told elsewhere."""
    template = caller.deploy.templates.get(request.template)
    return frozenset() if template is None else caller.deploy.policies.reads[template.access]


def seen(caller: Caller, request: AccessRequest, situation: Situation) -> Seen | None:
    """Of ``situation``, what other requests of the caller can move and some policy looked at."""
    looked_at = _looked_at(caller, request)
    if not _HOLDINGS & looked_at:
        return None
    return Seen(
        grants=situation.active_grants if "active_grants" in looked_at else None,
        count=situation.active_count if "active_count" in looked_at else None,
    )
