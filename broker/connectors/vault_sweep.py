"""Ending what one attempt made in Vault or OpenBao, and proving it (``vault_engine.py`` makes it).

Four rules. *Only where it was made*: at another cluster nothing is there, and nothing has ended for it
(``vault_cluster.py``). *The lease before the token*: revoking a token only queues its leases, and a queued
revocation beside ours would run the same SQL twice. *A good answer is no proof*: an unknown lease id
is revoked with success, "invalid accessor" says nothing of the login; proof is that the lease is
looked up and listed, and is not there. *Nobody else's*: a login in flight is upstream before it is in
the ledger, so an unknown lease is ended only when it is older than any issue may take.

Why a noted lease id needs no waiting although the outcome is unknown: an attempt creates two things,
each once; whoever knows the lease knows that both creations have landed.

An attempt makes its login by the time that no late create is reckoned with any more, or by the end of its token,
whichever is later: a server that was stopped carries out what it was sent before. So a token's end is noted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.threads import Threads
from broker.connectors.vault_calls import LeaseFacts, VaultCalls
from broker.connectors.vault_cluster import WhichCluster
from broker.connectors.vault_http import Known, VaultFailure
from broker.connectors.vault_wrapping import end_wrapping
from broker.lease.deadlines import no_late_create_after, until_next_sweep
from broker.ports.clock import Clock
from broker.ports.connectors import Carried, Handle, NotYet, Refused, RevokeContext, Revoked, RevokeOutcome
from broker.scope.canonical import JsonValue

# The server tells ages in whole seconds, and its lookup takes a moment.
_ROUNDING = timedelta(seconds=2)
# For a login in flight to get known: a commit takes milliseconds. And for what a token made last to end with it.
_LOOK_AGAIN = timedelta(milliseconds=500)
# In the handle, where the lease is not: until when the token may have been alive (RFC 3339).
_TOKEN_ENDED = "token_ended"  # noqa: S105 - a name, not a token


class LeaseEnder:
    """Ends attempts of one connector.

    ``kind``: the path that its credentials are made at. ``proof`` says what proves an end besides the lease's absence,
    for a handle at a time, or raises VaultFailure where that is not there yet.
    """

    def __init__(
        self,
        name: str,
        calls: VaultCalls,
        threads: Threads,
        cluster: WhichCluster,
        kind: str = "creds",
        proof: Callable[[Handle, datetime], Mapping[str, JsonValue]] = lambda handle, now: {},
    ) -> None:
        self._kind = kind
        self._proof = proof
        self._name = name
        self._calls = calls
        self._threads = threads
        self._cluster = cluster

    async def end(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """One try. Returns, whatever happens upstream."""
        try:
            if "lease" in handle:
                return await self._threads.run(partial(self._end_noted, handle, context.now))
            return await self._end_unnoted(handle, context)
        except VaultFailure as failure:
            return self._not_done(failure)

    async def inventory(self, mount: str, clock: Clock) -> Sequence[Carried]:
        """Every living lease of ``mount``. Raises VaultFailure; what ends meanwhile is left out."""
        here = await self._threads.run(partial(self._cluster.noted, {}))
        roles = await self._threads.run(partial(self._calls.list_roles, mount, self._kind))
        listed = [(role, await self._threads.run(partial(self._list, mount, role))) for role in roles]
        looks = [self._carried(here, mount, role, lease_id, clock) for role, ids in listed for lease_id in ids]
        return [each for each in await asyncio.gather(*looks) if each is not None]

    async def _carried(self, here: Handle, mount: str, role: str, lease_id: str, clock: Clock) -> Carried | None:
        found = await self._threads.run(partial(self._calls.find_lease, lease_id))
        if found is None:
            return None
        # By the server's age and our clock: the two clocks need not agree.
        handle = {**here, "mount": mount, "role": role, "lease": lease_id}
        return Carried(lease_id, None, clock.now() - found.age, handle)

    def _list(self, mount: str, role: str) -> tuple[str, ...]:
        return self._calls.list_leases(mount, role, self._kind)

    def _end_noted(self, handle: Handle, now: datetime) -> RevokeOutcome:
        """The lease is known, and mostly its token: the last two calls are the proof."""
        if elsewhere := self._cluster.elsewhere(self._name, handle):
            return elsewhere
        lease_id = str(handle["lease"])
        self._revoke_lease(lease_id)
        end_wrapping(self._calls, handle)
        if "accessor" in handle:
            self._calls.revoke_accessor(str(handle["accessor"]))
        if self._calls.find_lease(lease_id) is not None:
            return NotYet(f"{self._name} said the lease was revoked, but it is still there.")
        if lease_id in self._list(str(handle["mount"]), str(handle["role"])):
            return NotYet(f"{self._name} said the lease was gone, but it is still listed.")
        proof = self._proof(handle, now)
        if unproven := self._cluster.unproven(self._name, handle):
            return unproven
        return Revoked({"lease_id": lease_id, "proof": "lease neither found nor listed", **proof})

    def _revoke_lease(self, lease_id: str) -> None:
        """A failure that the lease's end explains is none: the token's expiry may have run the SQL before us."""
        try:
            self._calls.revoke_lease(lease_id)
        except VaultFailure as failure:
            if failure.status != 400 or self._calls.find_lease(lease_id) is not None:
                raise

    async def _end_unnoted(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """No lease id: the reply was lost, or never came. End the token, then look for a login that is nobody's."""
        if elsewhere := await self._threads.run(partial(self._cluster.elsewhere, self._name, handle)):
            return elsewhere
        present = _Present(context.now)
        latest = no_late_create_after(context.created_at, context.issue_deadline)
        noted = await self._end_token(handle, context, present)
        token_ended = datetime.fromisoformat(str(noted[_TOKEN_ENDED])) if _TOKEN_ENDED in noted else latest
        suspects = await self._suspects(handle, context, max(latest, token_ended), present)
        in_flight = [each for each in suspects if _may_be_in_flight(each, context) > timedelta(0)]
        if in_flight:
            why = "a login that may be another attempt's, in flight, is not told apart yet."
            return NotYet(why, _look_again(in_flight, context), failed=False, noted=noted)
        ended = [each.lease_id for each in suspects if await self._end_orphan(each.lease_id, context)]
        wait = _still_to_wait(context)
        if wait > timedelta(0):
            return NotYet("a login may still be made late; it is looked for again.", wait, failed=False, noted=noted)
        if token_ended > latest and noted != handle:
            why = "its token may have been alive until now; what was made with it is looked for again."
            return NotYet(why, _LOOK_AGAIN, failed=False, noted=noted)
        if unproven := await self._threads.run(partial(self._cluster.unproven, self._name, handle)):
            return replace(unproven, noted=noted)
        return Revoked(
            {
                "orphans_revoked": ended,
                "proof": "no unknown lease of the role from the time of this attempt",
                # A token whose reply was lost has no accessor to end it by; nobody holds it, and it ends by its TTL.
                "token": "revoked" if "accessor" in handle else "never noted",
            }
        )

    async def _end_token(self, handle: Handle, context: RevokeContext, present: _Present) -> Handle:
        """The handle, with until when the token may have been alive: where nobody noted when it ended, until now.

        It was made to end with the attempt, by itself.
        """
        if "accessor" not in handle:
            return handle
        was_alive = await self._threads.run(partial(self._calls.revoke_accessor, str(handle["accessor"])))
        if _TOKEN_ENDED in handle and not was_alive:
            return handle
        return {**handle, _TOKEN_ENDED: min(present.now(), context.expires_at).isoformat()}

    async def _suspects(
        self, handle: Handle, context: RevokeContext, until: datetime, present: _Present
    ) -> list[LeaseFacts]:
        """Living leases of the role that the ledger does not know and that this attempt may have made."""
        mount, role = str(handle["mount"]), str(handle["role"])
        listed = await self._threads.run(partial(self._list, mount, role))
        known = await context.known_upstream(listed)
        unknown = [lease_id for lease_id in listed if lease_id not in known]
        found: list[LeaseFacts] = []
        for lease_id in unknown:
            asked = present.now()
            lease = await self._threads.run(partial(self._calls.find_lease, lease_id))
            if lease is not None and may_be_made_between(context.created_at, until, lease.age, asked, present.now()):
                found.append(lease)
        return found

    async def _end_orphan(self, lease_id: str, context: RevokeContext) -> bool:
        """End a lease that is nobody's, unless it became known meanwhile. Raises unless it is proven gone."""
        if lease_id in await context.known_upstream([lease_id]):
            return False
        await self._threads.run(partial(self._end_and_prove, lease_id))
        return True

    def _end_and_prove(self, lease_id: str) -> None:
        self._revoke_lease(lease_id)
        if self._calls.find_lease(lease_id) is not None:
            raise VaultFailure(Known.UNKNOWN, "it said that an orphaned lease was revoked, but it is still there")

    def _not_done(self, failure: VaultFailure) -> RevokeOutcome:
        if failure.status in (401, 403):
            return Refused(f"{self._name} refuses the broker's own token: {failure.what}.")
        return NotYet(f"{self._name} could not end it: {failure.what}.", failure.retry_after)


class _Present:
    """What time it is during a try, which goes by the revoker's and may be slow."""

    def __init__(self, now: datetime) -> None:
        self._begun = now
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time()

    def now(self) -> datetime:
        """The time that the try began at, and what has passed since."""
        return self._begun + timedelta(seconds=self._loop.time() - self._at)


def may_be_made_between(begin: datetime, end: datetime, age: timedelta, asked: datetime, told: datetime) -> bool:
    """Whether a lease of that age may have been made then. The age was told between ``asked`` and ``told``. Pure."""
    return told - age >= begin - _ROUNDING and asked - age <= end + _ROUNDING


def _may_be_in_flight(lease: LeaseFacts, context: RevokeContext) -> timedelta:
    """For how long yet: every attempt has the same allowance between its intent and the end of its call."""
    return (context.issue_deadline - context.created_at) + _ROUNDING - lease.age


def _look_again(in_flight: list[LeaseFacts], context: RevokeContext) -> timedelta:
    """Soon, if nothing else is waited for; otherwise when the oldest of them is fair game."""
    wait = _still_to_wait(context)
    if wait <= timedelta(0):
        return _LOOK_AGAIN
    return min(wait, *(_may_be_in_flight(each, context) for each in in_flight))


def _still_to_wait(context: RevokeContext) -> timedelta:
    """Until the next sweep that can matter: at the call's deadline, and when no late create can land."""
    return until_next_sweep(context.now, context.created_at, context.issue_deadline)
