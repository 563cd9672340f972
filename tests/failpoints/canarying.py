"""Canaries of both kinds: what one measured is true, none is left behind, and its secret is nowhere.

Whatever fails, a run says what the upstream did, or that nothing can be said; and the next one measures.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from broker.audit.event import BROKER, EventType
from broker.canary.canary import Canary, Kind
from broker.canary.measurement import Outcome
from broker.canary.watch import Moment
from broker.clock import SystemRng
from broker.deployfiles.load import policy_schema
from broker.errors import BrokerError
from broker.identity.agent import Registry
from broker.identity.own import CANARY, canary_agent
from broker.issuance.canaries import Canaries
from broker.issuance.canary_run import Tools
from broker.issuance.leases import LeaseDesk
from broker.lease.machine import TERMINAL
from broker.policy.cedar import PolicySet
from broker.ports.deploys import DeploySet
from broker.ports.leases import Lease
from broker.ports.tasks import TaskState
from broker.stores.times import from_ms, to_ms
from tests.clock import START
from tests.failpoints.errand import Daemon, Errand
from tests.failpoints.points import Armed, Fault
from tests.issuance.world import ALICE, TENANT
from tests.patience import PATIENCE

_OWN = canary_agent("test")
_POLICIES = f"""
@id("canaries")
permit (principal, action == Action::"read", resource)
when {{ principal.entry == "{CANARY}" && resource.template == "orders-read" }};
"""
_TTL = timedelta(seconds=4)  # looked at once a second
_CANARY = Canary("fake", "orders-read", "dev", "dev", "orders", _TTL, timedelta(minutes=10))


class _Deploy:
    """The set in force."""

    def __init__(self, current: DeploySet) -> None:
        self.current = current


class _Settling:
    """Leases; after a revocation the revoker's lane goes first, so that a story passes its points in one order."""

    def __init__(self, leases: LeaseDesk, settled: Any) -> None:
        self._leases = leases
        self._settled = settled

    def __getattr__(self, name: str) -> Any:
        return getattr(self._leases, name)

    async def revoke(self, *arguments: Any) -> Lease:
        lease = await self._leases.revoke(*arguments)
        await self._settled()
        return lease


class CanaryErrand(Errand):
    """One run of each kind, by itself."""

    # There are two runs.
    differing: ClassVar[Mapping[str, int]] = dict.fromkeys(
        [
            *("start_task", "open_intent", "checkpoint", "activate", "confirm_delivery", "end_task"),
            *("claim_due", "record_revocations", "record_measurement"),
        ],
        2,
    )

    def __init__(self, directory: Path, armed: Armed | None, impatient: float) -> None:
        super().__init__(directory, armed, impatient)
        looks = armed is not None and armed.fault is Fault.HANG and armed.point.startswith("call use")
        self._use_timeout = timedelta(seconds=impatient if looks else PATIENCE)
        self._died: dict[str, datetime] = {}  # the ground truth: by attempt, when the upstream was made to end it
        self._measured: set[Kind] = set()

    async def prepare(self) -> None:
        """See Errand."""
        upstream = self.world.upstream
        policies = PolicySet.parse({"test.cedar": _POLICIES}, policy_schema())
        registry = Registry([ALICE], own=_OWN)
        self._deploy = replace(self.world.deploy, policies=policies, registry=registry, canaries={"fake": _CANARY})
        self._revoke, upstream.revoke = upstream.revoke, self._revoked  # type: ignore[method-assign]

    async def _revoked(self, handle: Any, context: Any) -> Any:
        attempt = str(handle["attempt"])
        lived = attempt in self.world.upstream.alive
        outcome = await self._revoke(handle, context)
        if lived and attempt not in self.world.upstream.alive:
            self._died[attempt] = self.world.clock.now()
        return outcome

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""

        async def wait(by: timedelta) -> None:
            self.world.clock.advance(by)
            with contextlib.suppress(BrokerError):  # what upkeep could not do it does at its next tick
                await daemon.upkeep.tick()
            await self.settled(daemon)

        leases: Any = _Settling(daemon.leases, lambda: self.settled(daemon))
        tools = Tools(
            *(daemon.store, daemon.issuer, daemon.tasks, leases, daemon.connectors),
            *(self.world.clock, self._moment, wait, self._use_timeout),
        )
        deploy: Any = _Deploy(self._deploy)
        made = Canaries(
            *(daemon.store, tools, deploy, daemon.connectors, daemon.gate, self.world.clock, SystemRng(), TENANT)
        )
        daemon.own = made
        await made.start()

    def _moment(self) -> Moment:
        now = self.world.clock.now()
        return Moment(now, now - START)

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        canaries: Canaries = daemon.own
        await canaries.tidy()
        await daemon.upkeep.tick()
        await self.settled(daemon)
        for kind in Kind:
            if kind not in self._measured:
                _, found = await canaries.run("fake", kind, BROKER, "", timedelta(seconds=10 * PATIENCE))
                assert found is not None, "a run comes to its end"
                assert not canaries.status("fake").running, "nothing of a run is left when it is over"
                if found.outcome is Outcome.UNMEASURED:
                    raise OSError(found.why)
                self._measured.add(kind)
        await self.settled(daemon)

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        alive = self.ask("SELECT 1 FROM attempts WHERE due_at IS NOT NULL")
        return set(self._measured) == set(Kind) and not alive and not self._open_tasks()

    def _open_tasks(self) -> list[Any]:
        return self.ask("SELECT 1 FROM tasks WHERE state = ?", TaskState.OPEN.value)

    async def check(self) -> None:
        """See Errand."""
        now = self.world.clock.now()
        usable = [each for each in self.world.upstream.alive if self.world.upstream.usable(each, now)]
        assert usable == [], "a canary lives on"
        states = {row[0] for row in self.ask("SELECT state FROM attempts")}
        assert states <= {each.value for each in TERMINAL}, states
        assert len(self.ask("SELECT 1 FROM leases")) == len(self.ask("SELECT 1 FROM attempts")), "none was tried twice"
        for attempt, lease in self.ask("SELECT id, lease_id FROM attempts"):
            assert self.ask("SELECT 1 FROM leases WHERE id = ? AND holder = ?", lease, str(_OWN.spiffe_id)), attempt
        self._measurements_are_true()
        for path in self.directory.glob("ledger.sqlite3*"):
            assert b"password-" not in path.read_bytes(), f"a canary's secret is in {path.name}"

    def _measurements_are_true(self) -> None:
        said = self.news("canary")
        kept = {row[0] for row in self.ask("SELECT id FROM canary_measurements")}
        assert {str(each.data["canary"]) for each in said} == kept
        assert self.faulty or [each.type for each in said] == [EventType.CANARY_MEASURED] * len(Kind)
        for each in said:
            if each.type == EventType.CANARY_UNMEASURED:
                continue
            ((attempt, expires_at),) = self.ask(
                "SELECT attempts.id, leases.expires_at FROM attempts JOIN leases ON leases.id = lease_id"
                " WHERE lease_id = ?",
                each.lease_id,
            )
            died = min(self._died.get(attempt, from_ms(expires_at)), from_ms(expires_at))
            since, at_least, measured = (each.data[name] for name in ("since_ms", "at_least_ms", "measured_ms"))
            lived = to_ms(died) - int(str(since))
            assert at_least is None or int(str(at_least)) <= lived, f"it worked, and was dead: {each.data}, {lived}"
            assert measured is None or lived <= int(str(measured)), f"it was refused, and worked: {each.data}, {lived}"
            late = lived > int(str(each.data["bound_ms"]))
            assert late or each.type == EventType.CANARY_MEASURED, "a false alarm"
