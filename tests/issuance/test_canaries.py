"""Canaries, on everything inside and a fake upstream that lies, hangs and breaks when told; time is the test's."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog.testing

from broker.audit.event import BROKER
from broker.canary.canary import Canary, Kind
from broker.canary.measurement import Measurement, Outcome
from broker.canary.watch import Moment
from broker.connectors.subject_key import ssh_public_key, x509_request
from broker.deployfiles.load import policy_schema
from broker.errors import BrokerError, Conflict, Denied, InvalidInput, NotFound, NotReady, Reason
from broker.identity.agent import Registry
from broker.identity.own import CANARY, canary_agent, refuse_own
from broker.issuance.canaries import SETTLING, Canaries
from broker.issuance.canary_run import LONGEST_TASK, Tools
from broker.issuance.tasks import TaskDesk, TaskOrder
from broker.lease.credential import ContractClass, SshCertificate, X509Certificate
from broker.lease.machine import State
from broker.policy.cedar import PolicySet
from broker.policy.quotas import Per, Quota
from broker.ports.canaries import KEPT_MEASUREMENTS
from broker.ports.connectors import Handle, Issued
from broker.ports.deploys import DeploySet
from broker.ports.leases import EndCause, Lease
from broker.ports.tasks import NewTask, Task
from broker.ports.views import TaskSearch
from broker.scope.model import Scope
from broker.suspension.suspension import Kind as Stop
from tests.clock import START, CountingRng
from tests.connectors.fake import FakeConnector, IssueMishap, RevokeMishap, UseMishap, contract
from tests.gates import gate
from tests.issuance.emergency import Emergency
from tests.issuance.world import ALICE, BOB, EVE, TENANT, World, agent
from tests.patience import PATIENCE, eventually

EVERY = timedelta(minutes=10)
TTL = timedelta(seconds=40)
WAIT = timedelta(seconds=PATIENCE)
OWN = canary_agent("test")
HOLDER = str(OWN.spiffe_id)
POLICIES = f"""
@id("agents")
permit (principal, action, resource) when {{ principal.environments.contains(resource.environment) }};
@id("canaries")
permit (principal, action == Action::"read", resource)
when {{ principal.entry == "{CANARY}" && resource.template == "orders-read" }};
"""
CANARY_OF_FAKE = Canary("fake", "orders-read", "dev", "dev", "orders", TTL, EVERY)


class OtherIds(CountingRng):
    """Ids that the world's own parts do not make."""

    def id(self) -> str:
        return f"z{super().id()[1:]}"


# What one tick leads to, at most.
COMMITS = 4


@dataclass
class Cage:
    """A world with one canary."""

    world: World
    canaries: Canaries
    current: DeploySet  # what DeploySource asks for
    # What the wall clock is set by during the run, at the wait of this number.
    jumps: dict[int, timedelta] = field(default_factory=dict)
    waits: int = 0
    drift: timedelta = timedelta(0)
    rng: OtherIds = field(default_factory=OtherIds)
    counted: list[tuple[str, str, str]] = field(default_factory=list)

    @classmethod
    async def open(cls, directory: Path, **options: Any) -> Cage:
        world = await World.open(directory)
        policies = PolicySet.parse({"test.cedar": POLICIES}, policy_schema())
        deploy = replace(
            world.deploy,
            policies=policies,
            registry=Registry([ALICE, BOB, EVE], own=OWN),
            canaries={"fake": CANARY_OF_FAKE},
        )
        world.deploy = deploy
        cage = cls(world, None, deploy)  # type: ignore[arg-type]
        cage.canaries = cage.restarted(**options)
        return cage

    def restarted(self, **options: Any) -> Canaries:
        """What another brokerd makes of the same ledger."""
        world = self.world
        tasks = TaskDesk(
            world.store,
            world.revoker.kick,
            world.gate,
            world.clock,
            self.rng,
            default_duration=LONGEST_TASK,
            max_duration=LONGEST_TASK,
        )
        tools = Tools(
            world.store,
            world.issuer,
            tasks,
            world.leases,
            self.connector,
            world.clock,
            self.moment,
            self.wait,
            **options,
        )
        told = self.counted
        return Canaries(
            world.store,
            tools,
            self,
            self.connector,
            world.gate,
            world.clock,
            self.rng,
            TENANT,
            counted=lambda *labels: told.append(labels),
        )

    def connector(self, name: str) -> FakeConnector | None:
        return self.world.upstream if name == "fake" else None

    def moment(self) -> Moment:
        now = self.world.clock.now()
        return Moment(now, now - START - self.drift)

    async def wait(self, by: timedelta) -> None:
        """Time passes, the revoker looks, and everybody who can go on does."""
        self.waits += 1
        jump = self.jumps.get(self.waits, timedelta(0))
        self.drift += jump
        self.world.later(by + jump)
        await self.world.upkeep.tick()
        # Claimed, revoked, recorded: each is a commit, and however slow the machine is, no time passes meanwhile.
        for _ in range(COMMITS):
            await self.world.store._writer.submit(lambda _: None)

    async def run(self, kind: Kind | None = Kind.ON_REVOKE, by: str = BROKER, name: str = "c1") -> Measurement:
        _, measurement = await self.canaries.run("fake", kind, by, name, WAIT)
        assert measurement is not None
        return measurement

    async def leases(self) -> list[Lease]:
        tasks = await self.world.store.search_tasks(TaskSearch(TENANT, agent=HOLDER), "", 100)
        return [lease for task in tasks for lease in await self.world.store.task_leases(TENANT, task.id)]

    async def settle(self) -> None:
        """Time passes until nothing is left: nobody has to end it."""
        while not await self.gone():
            await self.wait(timedelta(seconds=1))
            await asyncio.sleep(0.001)

    async def events(self, beginning: str = "canary.") -> list[dict[str, Any]]:
        found = [orjson.loads(body) for body in await self.world.store.audit_since(0, 10_000)]
        return [each for each in found if each["type"].startswith(beginning)]

    async def gone(self) -> bool:
        """No open task, nothing alive in the ledger."""
        open_ = await self.world.store.search_tasks(TaskSearch(TENANT, agent=HOLDER, open_only=True), "", 100)
        return not open_ and all(
            lease.state in (State.REVOKED, State.EXPIRED, State.VOID) for lease in await self.leases()
        )


@pytest.fixture
async def cage(tmp_path: Path) -> AsyncIterator[Cage]:
    async with opened(tmp_path, use_timeout=WAIT) as made:
        yield made


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Cage]:
    """One that takes what does not answer at once for what does not answer at all."""
    async with opened(tmp_path, use_timeout=timedelta(milliseconds=50)) as made:
        yield made


@asynccontextmanager
async def opened(directory: Path, **options: Any) -> AsyncIterator[Cage]:
    made = await Cage.open(directory, **options)
    yield made
    await made.canaries.stop()
    await made.world.close()


# --------------------------------------------------------------------------- what it measures


async def test_a_revocation_is_measured_by_using_what_is_revoked(cage: Cage) -> None:
    measurement = await cage.run()
    assert measurement.outcome is Outcome.WITHIN, measurement.why
    assert measurement.measured is not None
    assert timedelta(0) <= measurement.measured <= measurement.bound == timedelta(seconds=1)
    (lease,) = await cage.leases()
    assert (lease.holder, lease.cause, lease.id) == (HOLDER, EndCause.RELEASED, measurement.lease_id)
    uses = [name for name, _ in cage.world.upstream.calls if name in ("issue", "use", "revoke")]
    assert uses[:2] == ["issue", "use"]
    assert measurement.looks == uses.count("use") - 1
    assert await cage.gone()
    assert await cage.world.store.measurements(TENANT, "fake", 10) == [measurement]


@pytest.mark.parametrize(("gives", "is_key"), [(X509Certificate, x509_request), (SshCertificate, ssh_public_key)])
async def test_where_keys_are_certified_each_run_has_one_of_its_own(
    cage: Cage, gives: type, is_key: Callable[[str], object]
) -> None:
    upstream, keys = cage.world.upstream, []
    upstream.contract = replace(upstream.contract, gives=gives)
    issue = upstream.issue

    async def looking(handle: Handle, scope: Scope, *rest: Any) -> Issued:
        keys.append(scope.subject_public_key)
        return await issue(handle, scope, *rest)

    upstream.issue = looking  # type: ignore[method-assign]
    for name in ("c1", "c2"):
        assert (await cage.run(name=name)).outcome is Outcome.WITHIN
    for key in keys:
        is_key(key)
    assert len(set(keys)) == 2
    assert not any("PRIVATE" in str(each) for each in await cage.events(""))


async def test_an_expiry_is_measured_with_nobody_revoking(cage: Cage) -> None:
    measurement = await cage.run(Kind.ON_EXPIRY)
    assert measurement.outcome is Outcome.WITHIN, measurement.why
    assert measurement.measured is not None and measurement.at_least is not None
    assert measurement.at_least < timedelta(0) <= measurement.measured <= timedelta(milliseconds=20)
    (lease,) = await cage.leases()
    assert lease.cause in (EndCause.EXPIRED, EndCause.COMPLETED)
    assert measurement.since == lease.expires_at


async def test_who_dies_early_is_told(cage: Cage) -> None:
    cage.world.upstream.use_mishaps = deque([*[None] * 3, UseMishap.REFUSED])
    measurement = await cage.run(Kind.ON_EXPIRY)
    assert measurement.outcome is Outcome.WITHIN
    assert measurement.measured is not None and measurement.measured < timedelta(seconds=-5)


async def test_its_lease_goes_the_way_of_everybodys(cage: Cage) -> None:
    await cage.run(by="https://idp.test#ada")
    types = [each["type"] for each in await cage.events("")]
    assert types.index("lease.intent") < types.index("lease.issued") < types.index("lease.revoking")
    assert "canary.measured" in types
    (intent,) = await cage.events("lease.intent")
    assert intent["actor"] == HOLDER
    assert intent["data"]["policies"] == ["canaries"]
    (told,) = await cage.events()
    assert (told["actor"], told["vouched_by"]) == ("https://idp.test#ada", "upstream")


# --------------------------------------------------------------------------- what it finds


async def test_an_upstream_that_lies_is_found_out_and_the_credential_is_ended_all_the_same(cage: Cage) -> None:
    cage.world.upstream.revoke_mishaps.append(RevokeMishap.LIES)
    measurement = await cage.run()
    assert measurement.outcome is Outcome.LATE
    assert measurement.at_least is not None and measurement.at_least > measurement.bound
    assert cage.world.upstream.alive == {}
    assert [each["type"] for each in await cage.events()] == ["canary.bound_broken", "canary.measured"]
    (alarm,) = cage.canaries.alarms()
    assert "connector fake is not kept" in alarm
    assert cage.counted == [("fake", "ON_REVOKE", "ALIVE"), ("fake", "ON_REVOKE", "LATE")]
    # The alarm outlives the broker, and ends with a run that shows the bound kept.
    later = cage.restarted()
    await later.start()
    assert later.alarms() == [alarm]
    await cage.run(name="c2")
    assert cage.canaries.alarms() == []


async def test_a_lie_told_again_and_again_is_alarmed_while_it_lives_on(cage: Cage) -> None:
    cage.world.upstream.revoke_mishaps.extend([RevokeMishap.LIES] * 1_000)
    alive = asyncio.ensure_future(cage.run(Kind.ON_REVOKE))
    await eventually(lambda: _is(bool(cage.canaries.alarms())))
    (alarm,) = cage.canaries.alarms()
    assert "nobody has seen it refused yet" in alarm
    await eventually(lambda: _kept(cage))
    (kept,) = await cage.world.store.measurements(TENANT, "fake", 10)
    assert (kept.outcome, kept.measured, kept.confirmed_at) == (Outcome.ALIVE, None, kept.confirmed_at)
    # Its own time ends it upstream, in the end.
    measurement = await alive
    assert measurement.outcome is Outcome.LATE
    assert [each.outcome for each in await cage.world.store.measurements(TENANT, "fake", 10)] == [Outcome.LATE]


async def _kept(cage: Cage) -> bool:
    return bool(await cage.world.store.measurements(TENANT, "fake", 10))


async def _is(value: bool) -> bool:
    return value


async def test_a_revocation_that_fails_for_longer_than_the_bound_breaks_it(cage: Cage) -> None:
    cage.world.upstream.revoke_mishaps.extend([RevokeMishap.BROKEN] * 3)
    measurement = await cage.run()
    assert measurement.outcome is Outcome.LATE
    await cage.settle()


@pytest.mark.parametrize("mishap", [UseMishap.NO_ANSWER, UseMishap.DEFECT, UseMishap.HANG])
async def test_what_cannot_be_told_is_not_dead(impatient: Cage, mishap: UseMishap) -> None:
    impatient.world.upstream.use_mishaps.extend([mishap] if mishap is UseMishap.HANG else [mishap] * 200)
    with structlog.testing.capture_logs() as logs:
        measurement = await impatient.run()
    assert measurement.outcome is Outcome.UNMEASURED
    assert measurement.why
    assert "password-" not in measurement.why + repr(logs) + repr(await impatient.events(""))
    await impatient.settle()
    assert impatient.canaries.alarms() == []


async def test_what_cannot_be_told_after_the_revocation_is_not_dead(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.extend([None, *[UseMishap.NO_ANSWER] * 200])
    measurement = await cage.run()
    assert (measurement.outcome, measurement.measured) == (Outcome.UNMEASURED, None)
    assert "could not be told" in measurement.why
    await cage.settle()


async def test_a_credential_that_never_worked_measures_nothing(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.append(UseMishap.REFUSED)
    measurement = await cage.run()
    assert (measurement.outcome, measurement.looks) == (Outcome.UNMEASURED, 0)
    assert "while it should have worked" in measurement.why
    await cage.settle()


@pytest.mark.parametrize(
    "mishap", [IssueMishap.REFUSED, IssueMishap.LOST_REPLY, IssueMishap.LONGER, IssueMishap.DEFECT]
)
async def test_what_is_not_issued_measures_nothing_and_leaves_nothing(cage: Cage, mishap: IssueMishap) -> None:
    cage.world.upstream.issue_mishaps.append(mishap)
    measurement = await cage.run()
    assert measurement.outcome is Outcome.UNMEASURED
    await cage.settle()
    assert cage.world.upstream.alive == {}


# --------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("by", [timedelta(seconds=-90), timedelta(hours=1)])
async def test_a_clock_that_is_set_meanwhile_spoils_an_expiry(cage: Cage, by: timedelta) -> None:
    cage.jumps = {2: by}
    measurement = await cage.run(Kind.ON_EXPIRY)
    assert measurement.outcome is Outcome.UNMEASURED
    assert "clock was set" in measurement.why
    assert cage.canaries.alarms() == []


async def test_a_clock_that_is_set_meanwhile_spoils_no_revocation(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.extend([None, UseMishap.NO_ANSWER])
    cage.jumps = {1: timedelta(seconds=30)}
    measurement = await cage.run()
    assert measurement.outcome is Outcome.WITHIN
    assert measurement.measured is not None and measurement.measured < timedelta(seconds=1)


# --------------------------------------------------------------------------- when, and when not


async def test_two_at_once_are_one(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.extend([None, UseMishap.NO_ANSWER])
    first = asyncio.ensure_future(cage.run(name="c1"))
    await asyncio.sleep(0)
    with pytest.raises(Conflict) as caught:
        await cage.canaries.run("fake", None, "somebody", "c1", WAIT)
    assert caught.value.reason is Reason.CANARY_RUNNING
    again = asyncio.ensure_future(cage.run(name="c1"))  # the same call once more: it waits for the same run
    assert await first == await again == await cage.run(name="c1")
    assert [name for name, _ in cage.world.upstream.calls].count("issue") == 1


async def test_it_runs_when_due(cage: Cage) -> None:
    await cage.canaries.tick()
    await cage.canaries.tick()  # a second one changes nothing while it runs
    assert cage.canaries.status("fake").running == (Kind.ON_REVOKE, Kind.ON_EXPIRY)
    await eventually(lambda: _is(not cage.canaries.status("fake").running))
    await cage.canaries.tick()
    assert cage.canaries.status("fake").running == ()
    assert len(await cage.leases()) == 2
    cage.world.later(EVERY)
    await cage.canaries.tick()
    assert cage.canaries.status("fake").running == (Kind.ON_REVOKE, Kind.ON_EXPIRY)


async def test_a_restart_remembers_when_it_was_measured_last(cage: Cage) -> None:
    first = await cage.run()
    later = cage.restarted()
    await later.start()
    assert later.measured("fake") == {Kind.ON_REVOKE: first}
    await later.tick()
    assert later.status("fake").running == ()  # what the last run left comes first
    cage.world.later(SETTLING)
    await later.tick()
    assert later.status("fake").running == (Kind.ON_EXPIRY,)
    await later.stop()


async def test_nothing_is_begun_while_grants_are_stopped(cage: Cage) -> None:
    cage.world.gate.recovery = "recovery-1"
    await cage.canaries.tick()
    assert cage.canaries.status("fake").running == ()
    with pytest.raises(NotReady):
        await cage.run()
    assert (await cage.leases(), await cage.events()) == ([], [])


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Stop.CONNECTOR, "fake"), (Stop.TEMPLATE, "orders-read"), (Stop.ENTRY, CANARY), (Stop.EVERYTHING, "")],
)
async def test_what_is_suspended_has_no_canaries(cage: Cage, tmp_path: Path, kind: Stop, value: str) -> None:
    (tmp_path / "e").mkdir()
    other = await Emergency.open(tmp_path / "e")
    stopping = replace(
        other,
        world=cage.world,
        suspensions=type(other.suspensions)(
            cage.world.store,
            cage.world.revoker.kick,
            None,
            cage.world.clock,
            CountingRng(),  # type: ignore[arg-type]
        ),
    )
    await stopping.suspend(kind, value)
    measurement = await cage.run()
    assert measurement.outcome is Outcome.UNMEASURED
    assert "suspended" in measurement.why
    assert await cage.leases() == []
    await other.world.close()


async def test_policy_decides_on_it_and_nothing_else_permits_it(cage: Cage) -> None:
    without = PolicySet.parse({"test.cedar": POLICIES.split('@id("canaries")')[0]}, policy_schema())
    cage.current = replace(cage.current, policies=without)
    measurement = await cage.run()
    assert (measurement.outcome, measurement.lease_id) == (Outcome.UNMEASURED, "")
    assert await cage.leases() == []


async def test_people_are_never_asked_for_it(cage: Cage) -> None:
    gated = gate("one-sre", "true")
    cage.current = replace(cage.current, policies=PolicySet.parse({"test.cedar": POLICIES + gated}, policy_schema()))
    measurement = await cage.run()
    assert measurement.outcome is Outcome.UNMEASURED
    assert (await cage.leases(), await cage.events("access.")) == ([], [])


async def test_a_reload_that_takes_it_away_ends_no_run_and_begins_none(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.extend([None, UseMishap.NO_ANSWER])
    running = asyncio.ensure_future(cage.run())
    await asyncio.sleep(0)
    cage.current = replace(cage.current, templates={}, canaries={})
    for _ in range(50):
        await asyncio.sleep(0)
    with pytest.raises(NotFound) as caught:
        await running  # who waited is told that it is gone; the run itself went on to its end
    assert caught.value.reason is Reason.CANARY_NOT_FOUND
    await cage.settle()
    (kept,) = await cage.canaries.history("fake", 10)
    assert kept.outcome is Outcome.WITHIN
    await cage.canaries.tick()
    assert cage.canaries.all() == []


async def test_a_connector_that_only_time_ends_is_measured_by_its_expiry(cage: Cage) -> None:
    cage.world.upstream.contract = contract(ContractClass.EXPIRY_ONLY)
    with pytest.raises(InvalidInput) as caught:
        await cage.run(Kind.ON_REVOKE)
    assert caught.value.reason is Reason.CANARY_CANNOT_MEASURE
    assert (await cage.run(None)).kind is Kind.ON_EXPIRY


# --------------------------------------------------------------------------- beside everybody else


@pytest.mark.parametrize("per", [Per.CONNECTOR, Per.TEMPLATE])
async def test_a_canary_takes_no_place_from_agents_and_needs_none(cage: Cage, per: Per) -> None:
    cage.current = cage.world.deploy = replace(
        cage.current, quotas=(Quota("one", per, live_leases=1),), registry=cage.current.registry
    )
    # One that lives while an agent asks: in flight at the upstream.
    cage.world.upstream.use_mishaps.append(UseMishap.HANG)
    running = asyncio.ensure_future(cage.run())
    await cage.world.upstream.hanging.wait()
    task = await cage.world.task()
    granted = await cage.world.grant(task)
    assert granted.lease is not None
    # The place is taken now, and agents are told so.
    with pytest.raises(BrokerError) as caught:
        await cage.world.grant(task, name="r2")
    assert caught.value.reason is Reason.QUOTA_LIVE_LEASES
    cage.world.upstream.let_go.set()
    await running
    assert (await cage.run(name="c2")).outcome is Outcome.WITHIN  # and a canary is not


async def test_a_task_whose_start_was_not_answered_is_ended_soon_and_no_other_runs(
    cage: Cage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cage.world.store
    start = store.start_task

    async def unanswered(new: NewTask) -> Task:
        await start(new)
        raise NotReady(Reason.STORE_UNAVAILABLE, "disk I/O error")

    monkeypatch.setattr(store, "start_task", unanswered)
    assert (await cage.run()).outcome is Outcome.UNMEASURED
    monkeypatch.undo()
    # Of a run that is under way, on this replica or on another.
    order = TaskOrder("another", "to measure another", timedelta(hours=1), (), "", "", "canary")
    another = await cage.canaries._tools.tasks.start(replace(cage.world.caller(ALICE), agent=OWN), order)
    assert not await cage.gone()
    await cage.canaries.tidy()
    open_ = await store.search_tasks(TaskSearch(TENANT, agent=HOLDER, open_only=True), "", 100)
    assert [each.id for each in open_] == [another.id]
    assert cage.canaries._left == set()


async def test_a_task_that_could_not_be_ended_is_tried_again(cage: Cage, monkeypatch: pytest.MonkeyPatch) -> None:
    store = cage.world.store

    async def refused(*_: object) -> Task:
        raise NotReady(Reason.STORE_UNAVAILABLE, "disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(store, "end_task", refused)
        assert (await cage.run()).outcome is Outcome.WITHIN
        assert not await cage.gone()
        with pytest.raises(NotReady):
            await cage.canaries.tidy()
    await cage.canaries.tidy()
    assert await cage.gone()


async def test_what_another_replica_measured_is_read_also_of_a_canary_that_a_reload_brought(cage: Cage) -> None:
    """Neither by whoever has the job only, nor by the others only: a person may have asked any of them."""
    other = cage.restarted()
    cage.current = replace(cage.current, canaries={})
    await other.remember()
    cage.current = replace(cage.current, canaries={"fake": CANARY_OF_FAKE})
    measurement = await cage.run()
    assert other.measured("fake") == {}
    await other.remember()
    assert other.measured("fake") == {Kind.ON_REVOKE: measurement} == other.status("fake").newest
    later = replace(measurement, id="canary-later", told_at=measurement.told_at + timedelta(seconds=1))
    await cage.world.store.record_measurement(later)
    for each in (cage.canaries, other):
        await each.remember()
        assert each.measured("fake") == {Kind.ON_REVOKE: later}


async def test_what_could_not_be_kept_is_not_forgotten_for_what_was_before(
    cage: Cage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm above all."""
    assert (await cage.run()).outcome is Outcome.WITHIN
    cage.world.upstream.revoke_mishaps.append(RevokeMishap.LIES)

    async def refused(*_: object) -> None:
        raise NotReady(Reason.STORE_UNAVAILABLE, "disk I/O error")

    monkeypatch.setattr(cage.world.store, "record_measurement", refused)
    assert (await cage.run(name="c2")).outcome is Outcome.LATE
    await cage.canaries.remember()
    assert cage.canaries.alarms()


async def test_an_alarm_outlives_runs_that_measure_nothing_and_a_restart(cage: Cage) -> None:
    cage.world.upstream.revoke_mishaps.append(RevokeMishap.LIES)
    broken = await cage.run()
    for number in range(KEPT_MEASUREMENTS + 1):
        at = broken.told_at + timedelta(minutes=number + 1)
        nothing = replace(broken, id=f"canary-{number:04}", outcome=Outcome.UNMEASURED, began_at=at, told_at=at)
        await cage.world.store.record_measurement(nothing)
    later = cage.restarted()
    await later.start()
    assert later.alarms() == cage.canaries.alarms() != []


async def test_what_a_broker_that_died_in_a_run_left_is_ended_at_the_next_start(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.append(UseMishap.HANG)
    running = asyncio.ensure_future(cage.run())
    await cage.world.upstream.hanging.wait()
    (lease,) = await cage.leases()
    assert lease.state is State.ACTIVE
    # Killed here: nothing of the run is done any more, and another broker starts on its ledger.
    later = cage.restarted()
    await later.start()
    (lease,) = await cage.leases()
    assert (lease.state, lease.cause) in {(state, EndCause.ABANDONED) for state in (State.REVOKING, State.REVOKED)}
    await cage.world.upkeep.tick()
    await cage.settle()
    assert cage.world.upstream.alive == {}
    cage.world.upstream.let_go.set()
    await running


async def test_a_task_that_somebody_changed_keeps_no_broker_from_starting(cage: Cage, tmp_path: Path) -> None:
    cage.world.upstream.use_mishaps.append(UseMishap.HANG)
    running = asyncio.ensure_future(cage.run())
    await cage.world.upstream.hanging.wait()
    with sqlite3.connect(tmp_path / "ledger.sqlite3") as database:
        assert database.execute("UPDATE tasks SET purpose = 'x' WHERE creator = ?", (HOLDER,)).rowcount == 1
    database.close()
    await cage.restarted().start()
    await cage.wait(TTL)  # whatever became of its task, its lease has an end of its own
    await eventually(lambda: _is(not cage.world.upstream.alive))
    cage.world.upstream.let_go.set()
    await running


async def test_stopping_breaks_off_what_runs_and_ends_it(cage: Cage) -> None:
    cage.world.upstream.use_mishaps.append(UseMishap.HANG)
    running = asyncio.ensure_future(cage.run())
    await cage.world.upstream.hanging.wait()
    await cage.canaries.stop()
    await asyncio.wait([running])
    await cage.settle()
    assert await cage.world.store.measurements(TENANT, "fake", 10) == []


async def test_no_workload_is_the_broker(cage: Cage) -> None:
    with pytest.raises(Denied) as caught:
        refuse_own(OWN.spiffe_id)
    assert caught.value.reason is Reason.AGENT_NOT_REGISTERED
    registry = cage.current.registry
    assert registry.find(OWN.spiffe_id) is OWN
    assert OWN not in list(registry)
    assert len(registry) == 3
    refuse_own(agent("canary").spiffe_id)
