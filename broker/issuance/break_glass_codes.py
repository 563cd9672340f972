"""Sealed codes for the day on which the identity provider is down: made by two people, used by the one they name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.breakglass import codes as idea
from broker.breakglass.codes import Batch, KeptCode, NewCode
from broker.breakglass.intent import CREATE_BREAK_GLASS_CODES, codes_fields
from broker.breakglass.rules import unfit
from broker.errors import Denied, NotFound, Reason
from broker.issuance.break_glass_admission import person_in_force
from broker.issuance.break_glass_order import Proven
from broker.issuance.break_glass_reviews import whose
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.ports.break_glass import BreakGlassStore, NewBatch
from broker.ports.clock import Clock, Rng
from broker.scope.blank import blank
from broker.secret import Secret

_SEE_PAGE = "See docs/break-glass.md."

BATCH_PREFIX = "batch-"

# So many random bytes, from a cryptographic source.
RandomBytes = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class MadeCodes:
    """A batch as it was made: the only time that its codes are there to be read."""

    batch: Batch
    codes: Sequence[tuple[KeptCode, Secret]]


class CodeDesk:
    """Everything that is done with sealed codes but using one."""

    def __init__(
        self,
        store: BreakGlassStore,
        fresh: FreshLogins,
        clock: Clock,
        rng: Rng,
        random_bytes: RandomBytes,
        cost: int = idea.COST,
    ) -> None:
        self._fresh = fresh
        self._store = store
        self._cost = cost
        self._clock = clock
        self._rng = rng
        self._random = random_bytes
        # Of hashes at a time, one: each takes 32 MiB.
        self._hashing = asyncio.Semaphore(1)

    async def prove(self, tenant: str, person: str, text: Secret) -> Proven:
        """That ``person`` (issuer#subject) has this code. It is used up by the intent, not by this.

        Raises Unauthenticated (BREAK_GLASS_CODE_INVALID) for what is none: a wrong secret counts against the code.
        Denied (BREAK_GLASS_CODE_OF_ANOTHER) for one that names somebody else.
        """
        code = idea.read_code(text)
        try:
            kept = await self._store.get_code(tenant, code.id)
        except NotFound:
            raise idea.code_invalid() from None
        if kept.failures >= idea.MOST_FAILURES:
            raise idea.code_invalid()  # dead, and not worth a hash
        async with self._hashing:
            right = await asyncio.to_thread(idea.matches, code, kept, self._cost)
        if not right:
            await self._store.code_failed(tenant, code.id, self._clock.now())
            raise idea.code_invalid()
        if kept.person != person:
            raise Denied(
                Reason.BREAK_GLASS_CODE_OF_ANOTHER,
                f"code {kept.id} names another person than {person}.",
                hint=f"Use your own; if this one was opened by mistake: broker break-glass codes revoke {kept.id}",
                metadata={"codeId": kept.id},
            )
        return Proven(code_id=kept.id)

    async def request(
        self,
        caller: OperatorCaller,
        request_id: str,
        person: str,
        count: int,
        reason: str,
        *,
        fresh_id_token: str,
    ) -> Batch:
        """Ask for codes that name ``person``; a second person makes them."""
        person_in_force(caller)
        if blank(reason):
            raise unfit("reason", "say where the codes will lie", _SEE_PAGE)
        if not 1 <= count <= idea.MOST_IN_BATCH:
            raise unfit("count", f"is {count}; a batch has 1 to {idea.MOST_IN_BATCH} codes", _SEE_PAGE)
        named = whose(caller, person)
        fields = codes_fields("", person, count, reason)
        proof = self._fresh.demand(caller, fresh_id_token, CREATE_BREAK_GLASS_CODES, fields, about=named)
        batch = Batch(
            id=BATCH_PREFIX + self._rng.id(),
            person=named,
            person_name=next(each.display_name for each in caller.deploy.people.values() if each.id == named),
            count=count,
            reason=reason,
            requested_by=caller.id,
            requested_name=caller.operator.person.display_name,
            requested_at=self._clock.now(),
            confirmed_by="",
            confirmed_name="",
            confirmed_at=None,
        )
        return await self._store.request_codes(NewBatch(caller.tenant, request_id, batch, proof))

    async def make(self, caller: OperatorCaller, batch_id: str, *, fresh_id_token: str) -> MadeCodes:
        """Make the codes of a batch that somebody else has asked for. There is no second look at them.

        Not idempotent: a batch whose answer was lost is revoked, and asked for again.
        """
        person = person_in_force(caller)
        batch = await self._store.get_batch(caller.tenant, batch_id)
        fields = codes_fields(batch_id, "", 0, "")
        proof = self._fresh.demand(
            caller, fresh_id_token, CREATE_BREAK_GLASS_CODES, fields, about=batch_id, not_before=batch.requested_at
        )
        made = [await self._new_code() for _ in range(batch.count)]
        now = self._clock.now()
        kept = [
            KeptCode(
                id=each.id,
                batch=batch.id,
                person=batch.person,
                person_name=batch.person_name,
                salt=each.salt,
                hash=each.hash,
                created_at=now,
                expires_at=now + idea.CODES_LAST,
                failures=0,
                used_by="",
                used_at=None,
                revoked_by="",
                revoked_at=None,
            )
            for each in made
        ]
        after = await self._store.make_codes(caller.tenant, batch_id, caller.id, person.display_name, proof, kept, now)
        return MadeCodes(after, [(code, new.printed) for code, new in zip(kept, made, strict=True)])

    async def list(self, caller: OperatorCaller) -> tuple[Sequence[Batch], Sequence[KeptCode]]:
        """Batches that wait for a second person, and every code; nothing of what is printed."""
        return await self._store.codes(caller.tenant)

    async def revoke(self, caller: OperatorCaller, named: str) -> int:
        """Revoke a code, or a batch with all its codes; how many codes."""
        return await self._store.revoke_codes(caller.tenant, named, caller.id, self._clock.now())

    async def _new_code(self) -> NewCode:
        number = int.from_bytes(self._random(24), "big")
        id_ = idea.of_random(number, idea.ID_LENGTH)
        secret = Secret(idea.of_random(number >> 5 * idea.ID_LENGTH, idea.SECRET_LENGTH))
        salt = self._random(idea.SALT_BYTES)
        async with self._hashing:
            digest = await asyncio.to_thread(idea.hashed, secret, salt, self._cost)
        return NewCode(id_, salt, digest, idea.written(id_, secret.reveal()))
