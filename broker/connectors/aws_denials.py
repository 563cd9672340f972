"""Ending sessions of a role before their time: a Deny for each, written to the role, read back, and waited for.

What a policy says is ``aws_deny.py``'s, where a Deny goes is ``aws_deny_plan.py``'s. Here is the order of things, on
which correctness hangs (docs/decisions/aws-deny-policies.md):

* Only names of this writer's own epoch are written, one write at a time for each role, and a name whose write got
  no answer is not written again: whatever arrives late holds all that was acknowledged before it.
* What is denied is known from IAM itself, in whosesoever policy it stands; nothing is remembered that a crash could
  lose, but how long we have known it, and to forget that is to wait longer.
* An end is confirmed when the Deny has stood for as long as AWS may take to spread it, and is still there.
* A policy is deleted only when all that it denies has ended by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog

from broker.connectors.aws_deny import Contents, Session, document, epoch_of, name_of, read, size
from broker.connectors.aws_deny_plan import GRACE, LONGEST_SESSION, Shards, ended, older, placed, shrunk
from broker.connectors.aws_failures import FAILURES, code_of, not_ended, told
from broker.connectors.aws_iam import Iam, Role
from broker.ports.clock import Clock
from broker.ports.connectors import NotYet, RevokeContext, Revoked, RevokeOutcome

log = structlog.get_logger("broker.connectors")

# After it every session that was denied has ended by itself.
FORGET = 2 * LONGEST_SESSION

# After a refused write. A revocation is tried at least once a minute, so this lasts for as long as one is refused.
_REFUSED_FOR = timedelta(minutes=2)
_DOING = "deny the session on its role"
REACH_IT = (
    "Operators: give the connector keys of that account again, or `revocation.role_name`, by which it is reached."
)


def of_another_account(why: object) -> NotYet:
    """What came of an end where IAM knows a role of that name, and it is not the session's (``Role.elsewhere``)."""
    return NotYet(f"{why}: nothing there ends the session. {REACH_IT}", alone=True)


@dataclass(slots=True)
class _Held:
    """A Deny that stands: in which policy, and since when we know."""

    name: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Closed:
    """No session is to be made of a role: until when, and why."""

    until: datetime
    why: str


@dataclass(slots=True)
class _State:
    """One role. ``wanted``: who waits for the lock, so that one write does for all of them."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    shards: Shards = field(default_factory=Shards)
    wanted: dict[str, Session] = field(default_factory=dict)
    held: dict[str, _Held] = field(default_factory=dict)
    closed: Closed | None = None


class Denials:
    """The denied sessions of one connector. ``epoch``: this writer's own, letters and digits, never used before."""

    def __init__(self, connector: str, iam: Iam, clock: Clock, epoch: str, propagation: timedelta) -> None:
        self._connector = connector
        self._iam = iam
        self._clock = clock
        self._epoch = epoch
        self._propagation = propagation
        self._roles: dict[Role, _State] = {}

    def closed(self, role: Role) -> Closed | None:
        """Whether a session of this role would be dead from the start, or could not be ended; None where neither."""
        state = self._roles.get(role)
        if state is None or state.closed is None or state.closed.until <= self._clock.now():
            return None
        return state.closed

    async def deny(self, role: Role, session: Session, context: RevokeContext) -> RevokeOutcome:
        """One step towards its end: written, waited for, or Revoked. Never raises for what IAM does."""
        state = self._roles.setdefault(role, _State())
        state.wanted[session.user_id] = session
        try:
            async with state.lock:
                return await self._step(role, state, session, context)
        except FAILURES as error:
            if code_of(error) == "AccessDenied":
                why = f"the broker may not deny sessions of {role.arn}: what is given out could not be ended."
                state.closed = Closed(self._clock.now() + _REFUSED_FOR, why)
            return not_ended(error, self._connector, _DOING)
        finally:
            state.wanted.pop(session.user_id, None)

    async def tend(self) -> None:
        """Put back what somebody removed, and delete what is needed no more, role by role.

        Raises what the SDK raised for the first role that it failed for; the others are looked after all the same.
        """
        failed: Exception | None = None
        for role, state in list(self._roles.items()):
            async with state.lock:
                try:
                    await self._tend(role, state)
                except FAILURES as error:
                    if code_of(error) != "NoSuchEntity":  # whoever deleted the role ended all it gave out
                        failed = failed or error
                        continue
                    state.shards = Shards(following=state.shards.following)
                if not (state.shards.contents or state.held or state.wanted or self.closed(role)):
                    del self._roles[role]
        if failed is not None:
            raise failed

    # ------------------------------------------------------------------ one session

    async def _step(self, role: Role, state: _State, session: Session, context: RevokeContext) -> RevokeOutcome:
        held = state.held.get(session.user_id)
        if held is None:
            return await self._elsewhere(role) or await self._write(role, state, session, context)
        if (left := held.since + self._propagation - self._clock.now()) > timedelta(0):
            return self._wait(held.name, left)
        contents = read(await self._iam.policy(role, held.name))
        if contents is not None and contents.denies(session):
            if elsewhere := await self._elsewhere(role):
                return elsewhere
            return Revoked({"denied_by": held.name, "after_seconds": int(self._propagation.total_seconds())})
        self._lost(state, held.name)
        log.warning("a policy that denies sessions was removed or changed", role=role.arn, policy=held.name)
        await self._restore(role, state, held.name)
        return NotYet(f"somebody removed or changed policy {held.name} of {role.arn}; it is written again.")

    async def _elsewhere(self, role: Role) -> NotYet | None:
        """Nothing is written to, and proven by, another account's role of that name. None: it is the role itself."""
        why = role.elsewhere(await self._iam.role(role))
        return None if why is None else of_another_account(why)

    async def _write(self, role: Role, state: _State, session: Session, context: RevokeContext) -> RevokeOutcome:
        there = await self._iam.policies(role)
        standing = self._standing(state, there)
        missing = []
        for each in [session, *(one for one in state.wanted.values() if one.user_id != session.user_id)]:
            name = next((name for name, contents in standing.items() if contents.denies(each)), None)
            if name is None:
                missing.append(each)
            elif each.user_id not in state.held:
                state.held[each.user_id] = _Held(name, self._clock.now())
        if session not in missing:
            return self._wait(state.held[session.user_id].name, self._propagation)
        others = sum(size(each) for name, each in there.items() if epoch_of(name) != self._epoch)
        return await self._place(role, state, missing, others, context)

    def _standing(self, state: _State, there: Mapping[str, Any]) -> Mapping[str, Contents]:
        """What is denied. Of ours, what was acknowledged: IAM may show an older state for a while."""
        sealed = {name_of(self._epoch, number) for number in state.shards.sealed}
        ours = {
            name_of(self._epoch, number): contents
            for number, contents in state.shards.contents.items()
            if number not in state.shards.sealed
        }
        theirs = {
            name: contents
            for name, each in there.items()
            if (epoch_of(name) not in (None, self._epoch) or name in sealed) and (contents := read(each)) is not None
        }
        return {**theirs, **ours}

    async def _place(
        self, role: Role, state: _State, missing: Sequence[Session], others: int, context: RevokeContext
    ) -> RevokeOutcome:
        session = missing[0]
        await self._delete_ended(role, state)
        for wanted in (missing, missing[:1]):
            if (found := placed(state.shards, wanted, self._clock.now(), others)) is not None:
                break
            for number, contents in shrunk(state.shards, self._clock.now()).items():
                await self._put(role, state, number, contents)
            if (found := placed(state.shards, wanted, self._clock.now(), others)) is not None:
                break
        if found is None:
            return await self._deny_all(role, state, session, others, context)
        try:
            await self._put(role, state, *found)
        except FAILURES as error:
            if code_of(error) != "LimitExceeded":
                raise
            return await self._deny_all(role, state, session, others, context)
        for each in wanted:
            state.held[each.user_id] = _Held(name_of(self._epoch, found[0]), self._clock.now())
        return self._wait(name_of(self._epoch, found[0]), self._propagation)

    async def _deny_all(
        self, role: Role, state: _State, session: Session, others: int, context: RevokeContext
    ) -> RevokeOutcome:
        """The role is full: everything that it has given out until now ends with this one, and is told so first."""
        if context.end_together is None:
            return NotYet(f"the inline policies of {role.arn} are full ({others} characters are not this broker's).")
        number, contents = older(state.shards, session, self._clock.now())
        assert contents.older is not None  # noqa: S101 - that is what was asked for
        why = f"every session that {role.arn} has given out is being ended, because its inline policies are full."
        state.closed = Closed(contents.older.before, why)
        also = await context.end_together(session.user_id.partition(":")[0] + ":")
        log.warning(
            "a role's inline policies are full: every session that it has given out is being ended",
            role=role.arn,
            attempt=session.user_id.partition(":")[2],
            other_attempts=also,
            characters_of_others=others,
        )
        await self._put(role, state, number, contents)
        name = name_of(self._epoch, number)
        state.held[session.user_id] = _Held(name, self._clock.now())
        return self._wait(name, self._propagation)

    def _wait(self, name: str, left: timedelta) -> NotYet:
        return NotYet(f"denied by policy {name}; AWS takes up to a few minutes to spread that.", left, failed=False)

    # ------------------------------------------------------------------ our own policies

    async def _put(self, role: Role, state: _State, number: int, contents: Contents) -> None:
        """Write one of ours. Without an answer it counts as written, and never is again."""
        try:
            await self._iam.put(role, name_of(self._epoch, number), document(contents))
        except FAILURES as error:
            if not told(error, self._connector, _DOING).outcome_known:
                state.shards = state.shards.seal(number, contents)
            raise
        except asyncio.CancelledError:
            state.shards = state.shards.seal(number, contents)
            raise
        state.shards = state.shards.with_shard(number, contents)

    async def _restore(self, role: Role, state: _State, name: str) -> None:
        for number, contents in state.shards.contents.items():
            if name_of(self._epoch, number) == name and number not in state.shards.sealed:
                await self._put(role, state, number, contents)
                return

    def _lost(self, state: _State, name: str) -> None:
        state.held = {user_id: held for user_id, held in state.held.items() if held.name != name}

    async def _delete_ended(self, role: Role, state: _State) -> None:
        for number in ended(state.shards, self._clock.now()):
            await self._iam.delete(role, name_of(self._epoch, number))
            state.shards = state.shards.without(number)

    async def _tend(self, role: Role, state: _State) -> None:
        now = self._clock.now()
        state.held = {name: held for name, held in state.held.items() if held.since + FORGET > now}
        there = await self._iam.policies(role)
        await self._delete_ended(role, state)
        for number, contents in list(state.shards.contents.items()):
            if number not in state.shards.sealed and read(there.get(name_of(self._epoch, number))) != contents:
                await self._put(role, state, number, contents)
        for name, each in there.items():
            if epoch_of(name) in (None, self._epoch):
                continue
            newest = None if (contents_of := read(each)) is None else contents_of.newest
            if newest is not None and newest + GRACE < now:
                await self._iam.delete(role, name)
                log.info("a policy whose denied sessions have all ended was deleted", role=role.arn, policy=name)
