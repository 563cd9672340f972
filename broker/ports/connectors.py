"""An upstream that credentials are made at, and what comes back from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Protocol

from broker.lease.credential import Contract, Credential
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

# What is needed to end a credential later, and nothing that opens a door. JSON, kept in the ledger.
Handle = Mapping[str, JsonValue]

# Durably replaces the attempt's handle (None for the second: keep) and records the upstream's own
# name of what was made, so that a sweep can tell ours-and-known from ours-and-unknown. Returns after
# the commit. Raises if the attempt was ended meanwhile: the connector must then stop and clean up.
Checkpoint = Callable[[Handle, str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Returned:
    """Of what was granted, what the upstream itself says: never what was asked. None: it does not tell."""

    account: str | None = None  # as templates name accounts
    role: str | None = None  # as the template's grant names it (``role`` or ``role_name``)
    name: str | None = None  # that carries the attempt's id: of a session, a login


class Noted(NamedTuple):
    """A handle, and the upstream's own name of what it ends: what :data:`Checkpoint` takes."""

    handle: Handle
    upstream: str | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """What is left of an issue that has made its credential, and may be done while its activation is committed.

    Whoever issues commits ``noted`` together with the activation, awaits ``settled`` in any case, and delivers nothing
    before both.
    """

    noted: Noted
    # What the upstream is being told, and makes nothing new by. Raises UpstreamFailed.
    settled: Awaitable[None]
    # Takes back at once what was made, a best effort: for when it could not be noted.
    take_back: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Issued:
    """What the upstream returned: the credential, and what it really granted."""

    credential: Credential
    # When the upstream itself ends it. Later than asked by more than the contract's on_expiry: refused.
    expires_at: datetime
    # The upstream's own names and limits, for the audit trail. Never secret.
    observed: Mapping[str, JsonValue] = field(default_factory=dict)
    returned: Returned = Returned()
    inside: Credential | None = None  # where ``credential`` is wrapped: what it is that is inside
    unsettled: Unsettled | None = None  # None: all is done, and noted


@dataclass(frozen=True, slots=True)
class Revoked:
    """The upstream confirmed, with proof, that nothing of this attempt is usable any more."""

    observed: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expired:
    """Only time ends these credentials, and their time is over."""


@dataclass(frozen=True, slots=True)
class NotYet:
    """Not proven dead. Try again, not before ``retry_after`` if the upstream (or reason) says so.

    ``failed`` is False where nothing went wrong and only waiting helps (EXPIRY_ONLY): no alarm. ``noted``: what the
    attempt's handle is from now on, for the next try to go by; None: as it was. A try whose note was lost may take
    longer, and must prove no less. ``alone``: what failed is this attempt's own trouble and says nothing of others at
    the upstream, which go on being ended, and issued.
    """

    why: str
    retry_after: timedelta | None = None
    failed: bool = True
    noted: Handle | None = None
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The upstream refuses the broker itself (401, 403): an alarm, and still retried."""

    why: str


RevokeOutcome = Revoked | Expired | NotYet | Refused


class Use(StrEnum):
    """What an upstream said to a credential that was used."""

    WORKS = "WORKS"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class Carried:
    """One thing that lives upstream and carries our mark, as :meth:`Connector.inventory` found it. No secret."""

    name: str  # the upstream's own, as it is checkpointed to the ledger (``known_upstream`` compares it)
    attempt_id: str | None  # as the upstream tells it; None: it cannot, and ours by the place where it is
    created_at: datetime | None  # by the upstream's clock; None: it cannot tell
    handle: Handle  # ``revoke`` ends it by this


class RevokeContext(NamedTuple):
    """What the ledger knows about an attempt that must die. A tuple, because each try makes one."""

    now: datetime
    created_at: datetime  # when its intent was committed
    issue_deadline: datetime  # when its upstream call was given up
    expires_at: datetime
    outcome_known: bool  # False: the attempt never became ACTIVE, so the upstream may know more than we
    # Of these upstream names, the ones the ledger holds (for any attempt of this connector).
    known_upstream: Callable[[Sequence[str]], Awaitable[frozenset[str]]]
    # Durably end (ENDED_TOGETHER) whatever else of this connector lives under an upstream name that starts so, and
    # tell how many: before an upstream is told to end more than it was asked for. None: that must not be done.
    end_together: Callable[[str], Awaitable[int]] | None = None


class Severity(StrEnum):
    """How much a doubt matters."""

    ERROR = "ERROR"  # something does not work, or is wider than declared: to be mended now
    WARNING = "WARNING"  # something could not be told, or is weaker than it should be


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something about a connector's upstream that is not as it must be. Nothing in it is secret."""

    severity: Severity
    what: str  # one sentence
    remedy: str  # what an operator does about it, one sentence or more


class Connector(Protocol):
    """One configured upstream (adapter of one kind).

    Every method guarantees the error family: nothing but :class:`broker.errors.BrokerError` comes
    out of ``prepare`` and ``issue`` (``UpstreamFailed`` for whatever the upstream or its library did;
    its ``outcome_known`` is True only on proof that nothing was made). ``revoke`` returns, it does not
    raise: a failure is a :class:`NotYet`. Adapters are safe to call concurrently and bound their own
    threads; cancellation of ``issue`` leaves the outcome unknown.
    """

    @property
    def name(self) -> str:
        """The name templates use."""
        ...

    @property
    def contract(self) -> Contract:
        """What is promised about ending what this connector issues."""
        ...

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The handle, chosen by us before any call. Pure, and quick: no I/O.

        ``holder`` and ``task_id`` are for whom and for what, for upstreams that keep a note of it.
        Refuses here (InvalidInput, figures in the message) what the upstream would refuse for size
        or form, so that nothing is issued in order to find out.
        """
        ...

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """Make the credential, usable until ``expires_at`` and not longer.

        ``checkpoint`` is awaited between upstream calls, whenever ending the credential will need
        something that the next call would make unrecoverable (a token accessor, a lease id).
        """
        ...

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End whatever this attempt made. Idempotent: what is proven gone is Revoked again."""
        ...

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Use a credential of ours as its holder would, harmlessly, and never with the broker's own.

        REFUSED is said only where the upstream itself refused the credential. Raises UpstreamFailed, with the reason in
        its message, where that cannot be told: no answer, another failure, or nothing that could be tried. What is
        raised holds nothing of the credential. It ends by itself within the connector's own timeout.
        """
        ...

    async def inventory(self) -> Sequence[Carried] | None:
        """Everything that lives upstream and carries a broker's mark; None: this upstream cannot tell.

        Whose mark it is, the caller tells by the attempt's id (broker/lease/mark.py): another broker's are listed,
        too. Raises UpstreamFailed rather than tell half.
        """
        ...

    async def tend(self) -> None:
        """What must be done by time alone, called about once a minute: keep the broker's own credential alive.

        Raises UpstreamFailed where that failed; it is called again.
        """
        ...

    async def examine(self) -> Sequence[Doubt]:
        """Whether the upstream answers, gives the broker the rights it needs, and gives it no more than declared.

        Empty: all is well. Makes and changes nothing upstream. Does not raise for what the upstream does: that is
        a Doubt, too. Takes as long as its calls take; whoever asks bounds it.
        """
        ...

    async def close(self) -> None:
        """Let go of threads and connections. Nothing is revoked by it."""
        ...
