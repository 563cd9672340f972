"""What agents do with their access requests: look, follow, take back. Redeeming one is ``Issuer.redeem``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from broker.errors import Denied
from broker.issuance.caller import Caller
from broker.issuance.counting import standing
from broker.issuance.following import follow
from broker.issuance.stopped import check_suspended
from broker.ports.access_requests import FiledRequest, RequestEventRecord, RequestFilter
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySet
from broker.ports.lease_store import LeaseStore


@dataclass(frozen=True, slots=True)
class ApprovalStatus:
    """One approval that a request needs. ``missing`` says whose yes it lacks; empty where it is given."""

    name: str
    description: str
    missing: str


def statuses(filed: FiledRequest, deploy: DeploySet, now: datetime) -> tuple[ApprovalStatus, ...]:
    """How far each approval of ``filed`` is, with the rules and people in force."""
    try:
        counted = standing(filed, deploy, "", now)
    except Denied as undefined:
        return tuple(ApprovalStatus(name, "", undefined.message) for name in filed.approvals)
    missing = {each.rule: str(each) for each in counted.tally.missing}
    return tuple(ApprovalStatus(name, rule.description, missing.get(name, "")) for name, rule in counted.rules.items())


class RequestDesk:
    """Everything agents do with requests they filed. Somebody else's is not found."""

    def __init__(self, store: LeaseStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def get(self, caller: Caller, access_request_id: str) -> FiledRequest:
        """One request of the caller's."""
        return await self._store.get_access_request(caller.tenant, access_request_id, caller.id)

    async def list(
        self, caller: Caller, *, open_only: bool, after: str, limit: int
    ) -> tuple[Sequence[FiledRequest], str]:
        """A page of the caller's requests, newest first, and the id to continue after (empty: the end)."""
        return await page_of(self._store, RequestFilter(caller.tenant, caller.id, open_only), after, limit)

    async def withdraw(self, caller: Caller, access_request_id: str) -> FiledRequest:
        """Take an open request back. Repeating it is harmless."""
        return await self._store.withdraw_access_request(caller.tenant, access_request_id, caller.id, self._clock.now())

    async def watch(self, caller: Caller, after: int) -> AsyncIterator[RequestEventRecord | int]:
        """The events of the caller's requests, for ever; see :func:`broker.issuance.following.follow`."""

        async def page(position: int, limit: int) -> Sequence[RequestEventRecord]:
            await check_suspended(self._store, replace(caller, now=self._clock.now()))
            return await self._store.access_request_events(caller.tenant, caller.id, position, limit)

        await check_suspended(self._store, caller)  # follow() speaks before it reads
        async for event in follow(self._store, page, after):
            yield event


async def page_of(
    store: LeaseStore, filter_: RequestFilter, after: str, limit: int
) -> tuple[Sequence[FiledRequest], str]:
    """A page of requests, and the id to continue after (empty: the end)."""
    found = await store.list_access_requests(filter_, after, limit + 1)
    page = found[:limit]
    return page, page[-1].id if len(found) > limit else ""
