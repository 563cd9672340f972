"""Break-glass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from broker.breakglass.codes import Batch, KeptCode
from broker.breakglass.reviews import OverrideKind
from broker.breakglass.reviews import Use as BreakGlassUse
from broker.ports.leases import Lease
from broker.ports.proofs import ProofRecord
from broker.ports.reviews import NewFindings
from broker.ports.tasks import NewTask

# Before the request ids of break-glass in its holder's requests: no agent can write a request id with a slash.
BREAK_GLASS_REQUEST = "break-glass/"


@dataclass(frozen=True, slots=True)
class NewUse:
    """The emergency that an intent is for: who, why, under which terms of the template, and who is told.

    ``task``: the person's own, started in the intent's transaction; None where an agent's task is named.
    ``enabled`` is pure, and called in the writer's thread.
    """

    person: str  # issuer#subject
    person_name: str
    for_agent: str  # SPIFFE ID; empty: for the person
    groups: frozenset[str]  # of the person that the template pre-authorises
    reason: str
    incident: str
    how: str  # BY_LOGIN, BY_CODE
    proof: ProofRecord | None  # of the login; None with a code
    code_id: str
    review_due: datetime
    max_uses: int
    per: timedelta
    approvals: tuple[str, ...]  # passed over, by name
    told: tuple[tuple[str, str], ...]  # who would have approved: issuer#subject, name
    gates: tuple[str, ...]  # why grants are stopped for everybody else, where they are
    task: NewTask | None
    enabled: Callable[[str], bool]  # whether this person is still there


@dataclass(frozen=True, slots=True)
class NewOverride:
    """One person's word that ``person`` may pass over a suspension or a block, once, until ``expires_at``.

    Same (by, request_id): the same word; other content: Conflict.
    """

    tenant: str
    id: str
    request_id: str
    request_digest: str
    kind: OverrideKind
    subject: str  # the suspension, or the blocked group
    person: str  # whose next break-glass: issuer#subject
    by: str
    by_name: str
    reason: str
    proof: ProofRecord
    now: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class OverrideGiven:
    """What came of it: who has said so by now, and how many it takes."""

    id: str
    by: tuple[str, ...]
    needed: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Tended:
    """What time brought to uses of break-glass."""

    ended: tuple[str, ...] = ()  # leases whose end is told
    overdue: tuple[str, ...] = ()  # leases whose review has become overdue
    connectors: frozenset[str] = frozenset()  # of credentials that are being ended because their person is gone


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Codes that one person asks for. Same (requested_by, request_id): the same batch; other content: Conflict."""

    tenant: str
    request_id: str
    batch: Batch
    proof: ProofRecord


class BreakGlassStore(Protocol):
    """Uses of break-glass, their reviews, overrides and sealed codes: in one database with :class:`LeaseStore`.

    An intent with a ``break_glass`` is opened by :meth:`LeaseStore.open_intent`, in whose transaction everything here
    is decided, too. It refuses Denied (SUSPENDED) unless others' words pass over that, Denied (BREAK_GLASS_BLOCKED)
    while a review of one of its groups is overdue, Exhausted (BREAK_GLASS_RATE), WrongState (BREAK_GLASS_CODE_SPENT),
    Denied (BREAK_GLASS_CODE_OF_ANOTHER); and what it rests on, words and code, is used up with it.
    """

    async def get_use(self, tenant: str, lease_id: str) -> tuple[BreakGlassUse, Lease]:
        """Raises NotFound (BREAK_GLASS_NOT_FOUND)."""
        ...

    async def uses(self, tenant: str, unsettled: bool, after: str, limit: int) -> Sequence[tuple[BreakGlassUse, Lease]]:
        """Newest first; ``unsettled``: only those alive, or not reviewed. Raises InvalidInput (PAGE_TOKEN_INVALID)."""
        ...

    async def blocked(self, tenant: str, groups: frozenset[str], now: datetime) -> Mapping[str, str]:
        """Of ``groups``, those that an overdue review blocks, each with the lease that is to be reviewed."""
        ...

    async def review_use(self, new: NewFindings) -> BreakGlassUse:
        """Record a review. One stands: WrongState (BREAK_GLASS_REVIEWED) for another, Denied (REVIEW_OF_ONES_OWN),
        WrongState (BREAK_GLASS_LIVE) while the credential is in use.
        """
        ...

    async def override(self, new: NewOverride) -> OverrideGiven:
        """Record a word. WrongState (BREAK_GLASS_NOTHING_TO_OVERRIDE) where nothing stands in the way, Denied
        (SECOND_PERSON_REQUIRED) for a word for oneself.
        """
        ...

    async def tend_uses(self, tenant: str, enabled: Callable[[str], bool], now: datetime, by: str = "") -> Tended:
        """What time brings: tell what has ended, what review is overdue; end what a person got who is gone.

        ``by``: the digest of the deploy set that has people; where another one is in force, nobody counts as gone.
        Writes only if there is something to do. Each is told once.
        """
        ...

    # -- sealed codes
    async def request_codes(self, new: NewBatch) -> Batch:
        """Remember that codes are wanted; nothing is made."""
        ...

    async def make_codes(
        self,
        tenant: str,
        batch_id: str,
        by: str,
        by_name: str,
        proof: ProofRecord,
        codes: Sequence[KeptCode],
        now: datetime,
    ) -> Batch:
        """Keep the codes of a batch, by a second person. Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND), Denied
        (SECOND_PERSON_REQUIRED), WrongState (BREAK_GLASS_CODE_SPENT) for one that is made, or has waited too long.
        """
        ...

    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        """Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND)."""
        ...

    async def get_code(self, tenant: str, code_id: str) -> KeptCode:
        """Raises NotFound (BREAK_GLASS_CODE_NOT_FOUND)."""
        ...

    async def codes(self, tenant: str) -> tuple[Sequence[Batch], Sequence[KeptCode]]:
        """The batches that wait for a second person, and all codes; oldest first."""
        ...

    async def code_failed(self, tenant: str, code_id: str, now: datetime) -> None:
        """A wrong secret was given for it; after too many it is revoked."""
        ...

    async def revoke_codes(self, tenant: str, named: str, by: str, now: datetime) -> int:
        """Revoke a code, or a batch with all its codes; how many codes. Repeating it is harmless."""
        ...
