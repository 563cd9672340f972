"""Who an agent is to the broker: a registered workload with an accountable owner.

An operator registers one workload by its exact SPIFFE ID, or many by a path pattern (``pattern.py``).
Either is one *entry* of the registry, and one *principal*: wherever it counts that two are not the same
(separation of duties), all identities that one pattern matches are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from broker.errors import Denied, InvalidInput, Reason, Unauthenticated
from broker.identity.pattern import IdPattern, Segments
from broker.identity.pattern_index import PatternIndex
from broker.identity.spiffe_id import SpiffeId


class Tier(StrEnum):
    """Autonomy tiers (R12)."""

    ADVISORY = "advisory"
    SEMI_AUTONOMOUS = "semi-autonomous"
    AUTONOMOUS = "autonomous"


@dataclass(frozen=True, slots=True)
class May:
    """What a person may have done for them by agents that act on their behalf."""

    access: frozenset[str]  # classes: read, write, ...
    environments: frozenset[str]
    templates: frozenset[str] = frozenset()  # none: whichever


@dataclass(frozen=True, slots=True)
class Person:
    """A human, named by (issuer, subject); e-mail is for display only."""

    issuer: str
    subject: str
    display_name: str
    email: str = ""
    groups: frozenset[str] = frozenset()
    disabled: bool = False
    until: datetime | None = None  # from then on as if disabled
    may: May | None = None  # None: nothing is done on their behalf

    def enabled(self, now: datetime) -> bool:
        """Whether this person counts for anything now."""
        return not self.disabled and (self.until is None or now < self.until)

    @property
    def id(self) -> str:
        """Issuer and subject as one text; unambiguous, because an issuer has no fragment (OpenID Connect Core, 2)."""
        return f"{self.issuer}#{self.subject}"


@dataclass(frozen=True, slots=True)
class Quotas:
    """How much one identity may hold at a time; of a pattern's identities, each."""

    live_leases: int
    open_tasks: int
    pending_requests: int = 5  # access requests that wait for people


@dataclass(frozen=True, slots=True)
class Agent:
    """One registered workload, found by an entry of its own or by the pattern of one.

    ``principal`` is the entry's name, which no SPIFFE ID can influence. Whoever holds leases and tasks is
    the ``spiffe_id``; whoever must not approve, sponsor or validate what they asked for is the principal.
    """

    spiffe_id: SpiffeId
    owner: Person
    tier: Tier
    roles: frozenset[str]
    environments: frozenset[str]
    quotas: Quotas
    description: str = ""
    principal: str = field(kw_only=True)
    segments: Segments = field(default=(), kw_only=True)  # what the pattern names of its id; none for an exact entry
    promoted: bool = field(default=False, kw_only=True)  # whether operators have promoted it into production
    tools: frozenset[str] = field(default=frozenset(), kw_only=True)  # what it may call; empty: there is no list

    def __hash__(self) -> int:
        # Every decision looks its agent up, and few fields tell agents apart; equality still reads them all.
        return hash(self.spiffe_id)


@dataclass(frozen=True, slots=True)
class AgentPattern:
    """An entry for every workload whose id matches ``pattern``. They differ in nothing but their id."""

    principal: str
    pattern: IdPattern
    owner: Person
    tier: Tier
    roles: frozenset[str]
    environments: frozenset[str]
    quotas: Quotas
    description: str = ""
    promoted: bool = False
    tools: frozenset[str] = frozenset()

    def agent(self, spiffe_id: SpiffeId, segments: Segments) -> Agent:
        """The workload of this id, which was matched, and what of it is named."""
        return Agent(
            spiffe_id=spiffe_id,
            owner=self.owner,
            tier=self.tier,
            roles=self.roles,
            environments=self.environments,
            quotas=self.quotas,
            description=self.description,
            principal=self.principal,
            segments=segments,
            promoted=self.promoted,
            tools=self.tools,
        )


class Delivery(StrEnum):
    """Which way a request and its answer travel."""

    DIRECT = "direct"  # the agent's own mTLS ends at the broker
    PROXY = "proxy"  # it ends at a proxy, which sees both in clear


# What the trail has in its place where a person took delivery: by break-glass.
TO_PEOPLE = "people"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is asking, validated: by the X.509-SVID of its connection, or by the JWT-SVID that a proxy brought.

    Through a proxy, ``spiffe_id`` is the agent's, the window is where token and proxy are both valid, and
    ``serial`` is of the certificate on the connection, the proxy's.
    """

    spiffe_id: SpiffeId
    not_before: datetime
    not_after: datetime
    serial: int
    fingerprint: str  # SHA-256, hex: of the leaf's DER, or of what is signed of the token
    proxy: Peer | None = None
    issuer: str = ""  # of the certificate, as RFC 4514 writes it

    @property
    def delivery(self) -> Delivery:
        """Whether a proxy stands between the agent and the broker."""
        return Delivery.DIRECT if self.proxy is None else Delivery.PROXY


class Registry:
    """The entries of one deploy set. An exact SPIFFE ID beats a pattern; no two patterns match one id.

    Immutable. Agents that a pattern matches are made when they are asked for and not kept, so that
    however many identities come by, the registry is as large as what operators wrote.
    """

    def __init__(
        self, agents: Iterable[Agent], patterns: Iterable[AgentPattern] = (), own: Agent | None = None
    ) -> None:
        """``own``: the broker itself, where it holds leases. It is found and is not counted among the entries.

        Raises :class:`InvalidInput` (CONFIG_INVALID) where two patterns, or the names of two entries, collide."""
        self._by_id: Mapping[SpiffeId, Agent] = {agent.spiffe_id: agent for agent in agents}
        self.patterns = tuple(patterns)
        self._index = PatternIndex([entry.pattern for entry in self.patterns])
        for one, other in self._index.overlaps():
            raise _ambiguous(f"{self.patterns[one].pattern} and {self.patterns[other].pattern} match one id")
        self.own = own
        self._known = self._by_id if own is None else {**self._by_id, own.spiffe_id: own}
        names = [*(agent.principal for agent in self), *(entry.principal for entry in self.patterns)]
        if len(set(names)) != len(names) or "" in names:
            raise _ambiguous("two entries have one name, or one has none")

    def __len__(self) -> int:
        """How many entries there are: a pattern is one."""
        return len(self._by_id) + len(self.patterns)

    def __contains__(self, spiffe_id: object) -> bool:
        if self.own is not None and spiffe_id == self.own.spiffe_id:
            return True
        return spiffe_id in self._by_id or (isinstance(spiffe_id, SpiffeId) and self._matched(spiffe_id) is not None)

    def __iter__(self) -> Iterator[Agent]:
        """The agents with an entry of their own; those that a pattern would match cannot be listed."""
        return iter(self._by_id.values())

    def find(self, spiffe_id: SpiffeId) -> Agent:
        """The agent of this id. Raises :class:`Denied` (AGENT_NOT_REGISTERED)."""
        try:
            return self._known[spiffe_id]
        except KeyError:
            agent = self._matched(spiffe_id)
        if agent is None:
            raise Denied(
                Reason.AGENT_NOT_REGISTERED,
                f"{spiffe_id} is not a registered agent.",
                hint="An operator registers agents in the deploy set (agents/*.yaml), each with an owner.",
                metadata={"spiffeId": str(spiffe_id)},
            )
        return agent

    def named(self, text: str, field: str) -> Agent:
        """The agent that a request names in ``field``, as a SPIFFE ID.

        Raises :class:`InvalidInput` (FIELD_INVALID) for what is none: the caller is who it is all the same, and
        UNAUTHENTICATED would send it looking for another SVID. :class:`Denied` (AGENT_NOT_REGISTERED).
        """
        try:
            spiffe_id = SpiffeId.parse(text)
        except Unauthenticated as error:
            raise InvalidInput(
                Reason.FIELD_INVALID,
                f"{field}: {error.message}",
                hint=error.hint,
                metadata={"fields": field, "field": field},
            ) from None
        return self.find(spiffe_id)

    def registers(self, holder: str) -> bool:
        """Whether the SPIFFE ID written as ``holder`` is an agent's. False, too, for what is no SPIFFE ID."""
        try:
            return SpiffeId.parse(holder) in self
        except Unauthenticated:
            return False

    def _matched(self, spiffe_id: SpiffeId) -> Agent | None:
        found = self._index.find(spiffe_id)
        return None if found is None else self.patterns[found[0]].agent(spiffe_id, found[1])


def _ambiguous(what: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"The registry is ambiguous: {what}.",
        hint="`broker check` on the deploy directory names file, line and field.",
    )
