"""What is really alive upstream, and the adapter that a broker reaches it through, over a network that loses things."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import Contract, ContractClass, DatabaseLogin
from broker.lease.deadlines import no_late_create_after
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Checkpoint,
    Expired,
    Handle,
    Issued,
    NotYet,
    Refused,
    RevokeContext,
    Revoked,
    RevokeOutcome,
)
from broker.scope.model import Scope
from broker.secret import Secret
from tests.connectors.fake import contract
from tests.simulation.chance import Chance
from tests.simulation.leaks import secret
from tests.simulation.process import Process, current


@dataclass(frozen=True, slots=True)
class Made:
    """One credential: until when the upstream lets it in, and to what."""

    attempt: str
    until: datetime
    scope: Scope


@dataclass(frozen=True, slots=True)
class Try:
    """Of one process, to end one credential."""

    process: Process | None
    begun: datetime


# What is told of each try, with the one that is under way; it returns what is remembered of the new one.
OnTry = Callable[[str, Process | None, Try | None], Try]


class Truth:
    """Every credential that any upstream ever made. Only the simulation's checks look here."""

    def __init__(self, clock: Clock, on_made: Callable[[Made], None], on_try: OnTry) -> None:
        self._clock = clock
        self._on_made = on_made
        self._on_try = on_try
        self._trying: dict[str, Try] = {}
        self.alive: dict[str, Made] = {}
        self.ever: set[str] = set()
        self.lied_about: set[str] = set()  # said to be gone, by the upstream itself, and alive

    def make(self, made: Made) -> None:
        self._on_made(made)
        self.ever.add(made.attempt)
        self.alive[made.attempt] = made

    @contextlib.contextmanager
    def at_work(self, attempt: str, process: Process | None) -> Iterator[None]:
        """A process tries to end it."""
        begun = self._on_try(attempt, process, self._trying.get(attempt))
        self._trying[attempt] = begun
        try:
            yield
        finally:
            if self._trying.get(attempt) is begun:
                del self._trying[attempt]

    def end(self, attempt: str) -> None:
        self.alive.pop(attempt, None)

    def usable(self, attempt: str) -> bool:
        made = self.alive.get(attempt)
        if made is not None and self._clock.now() >= made.until:
            del self.alive[attempt]
            made = None
        return made is not None


class SimulatedConnector:
    """The port, over a network. ``allowance``: how long an issue may take, and a request may be on its way."""

    def __init__(
        self, name: str, cls: ContractClass, truth: Truth, chance: Chance, clock: Clock, allowance: timedelta
    ) -> None:
        self._name = name
        self._truth = truth
        self._chance = chance
        self._clock = clock
        self._allowance = allowance.total_seconds()
        self._contract = replace(contract(cls), ttl_floor=timedelta(seconds=1))
        self._made: dict[str, datetime] = {}  # by attempt, when
        self.down = ""  # for a while: "hangs", "broken" or "forbidden"

    @property
    def name(self) -> str:
        return self._name

    @property
    def contract(self) -> Contract:
        return self._contract

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        return {"attempt": attempt_id}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        attempt = str(handle["attempt"])
        await checkpoint({**handle, "noted": True}, None)
        await self._arrive("issue")
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        late = self._chance.sometimes("late create", 0.12)
        on_its_way = self._chance.between(0.5, 0.99) * self._allowance if late else self._chance.between(0.001, 0.05)
        # What was sent arrives, whether anybody still waits for it or lives.
        asyncio.get_running_loop().call_later(on_its_way, self._make, Made(attempt, expires_at, scope), arrived)
        if late and self._chance.often(0.5):
            await asyncio.sleep(self._chance.between(0, 2))
            raise _failed(known=False)
        await arrived
        if self._chance.sometimes("lost reply", 0.15):
            raise _failed(known=False)
        if self._chance.sometimes("reply that never comes", 0.15):
            await asyncio.Event().wait()
        await asyncio.sleep(self._chance.between(0.001, 0.05))
        upstream = f"up-{attempt}"
        await checkpoint({**handle, "noted": True, "upstream": upstream}, upstream)
        login = DatabaseLogin("postgresql", "db.test", 5432, "orders", f"login-{attempt}", Secret(secret(attempt)))
        longer = self._chance.sometimes("granted for longer", 0.25)
        return Issued(login, expires_at + timedelta(hours=1) if longer else expires_at, {"upstream": upstream})

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        attempt = str(handle["attempt"])
        with self._truth.at_work(attempt, current()):
            return await self._revoke(attempt, handle, context)

    async def _revoke(self, attempt: str, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        if self._contract.cls is ContractClass.EXPIRY_ONLY:
            left = context.expires_at - context.now
            return Expired() if left <= timedelta(0) else NotYet("only time ends it.", left, failed=False)
        try:
            await self._arrive("revoke")
        except UpstreamFailed as failure:
            if self.down == "limits":
                return NotYet(failure.message, timedelta(seconds=self._chance.between(1, 20)))
            return (
                Refused(failure.message) if failure.reason is Reason.UPSTREAM_ROOT_REFUSED else NotYet(failure.message)
            )
        if self._chance.sometimes("lie: revoked, and alive", 0.15):
            self._truth.lied_about.add(attempt)
        else:
            self._truth.end(attempt)
        if self._chance.sometimes("lost confirmation", 0.08):
            return NotYet("no answer in time.")
        await asyncio.sleep(self._chance.between(0.001, 0.05))
        wait = no_late_create_after(context.created_at, context.issue_deadline) - context.now
        if not context.outcome_known and "upstream" not in handle and wait > timedelta(0):
            self._chance.told["swept, and again later"] += 1
            return NotYet("a late create may still land.", wait, failed=False)
        return Revoked({"upstream": handle.get("upstream")})

    async def inventory(self) -> Sequence[Carried] | None:
        if self._contract.cls is ContractClass.EXPIRY_ONLY:
            return None
        await self._arrive("inventory")
        listed = [
            Carried(f"up-{attempt}", attempt, made, {"attempt": attempt, "upstream": f"up-{attempt}"})
            for attempt, made in self._made.items()
            if self._truth.usable(attempt)
        ]
        await asyncio.sleep(self._chance.between(0.001, 0.05))  # what is told was so a moment ago
        self._chance.told["an inventory was told"] += 1
        return listed

    async def tend(self) -> None:
        await self._arrive("tend")

    async def close(self) -> None:
        pass

    async def _arrive(self, what: str) -> None:
        """The way there, and whoever stands in it. Raises UpstreamFailed: nothing has arrived."""
        await asyncio.sleep(self._chance.between(0.001, 0.05))
        if self.down and not self._chance.calm:
            self._chance.told[f"{what} while it {self.down}"] += 1
            if self.down == "hangs":
                await asyncio.sleep(self._chance.between(5, 60))
                raise _failed(known=True)
            raise _failed(known=True, root=self.down == "forbidden")
        if self._chance.sometimes(f"{what} refused", 0.05):
            raise _failed(known=True)

    def _make(self, made: Made, arrived: asyncio.Future[None]) -> None:
        self._truth.make(made)
        self._made[made.attempt] = self._clock.now()
        if not arrived.done():
            arrived.set_result(None)


def _failed(*, known: bool, root: bool = False) -> UpstreamFailed:
    reason = Reason.UPSTREAM_ROOT_REFUSED if root else Reason.UPSTREAM_UNAVAILABLE
    return UpstreamFailed(reason, "the simulated upstream failed.", outcome_known=known)
