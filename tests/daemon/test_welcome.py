"""Who was let in once is not let in for ever: roots, the deny list and federation, on a running brokerd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from broker.api import streams as open_streams
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from broker.errors import Reason
from tests.api.judged import Judged, judging
from tests.api.served import ANALYST, CA, DOMAIN, MIGRATOR, Served, ask, private, reason, serve, start_task, svid
from tests.clock import TICK, StoppableClock
from tests.forge import Forged, authority
from tests.patience import PATIENCE, becomes_true, eventually

PROMISED = timedelta(seconds=5)
NEXT = authority(DOMAIN, at=CA.at, name="next CA")
PARTNER = authority("partner.org", at=CA.at)
PLANNER = "spiffe://partner.org/agent/planner"


@pytest.fixture
def clock() -> StoppableClock:
    """The broker's."""
    return StoppableClock()


@pytest.fixture
async def served(tmp_path: Path, clock: StoppableClock) -> AsyncIterator[Served]:
    async with serve(tmp_path, clock=clock) as running:
        yield running


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judged]:
    with judging(monkeypatch) as counting:
        yield counting


def put(path: Path, data: bytes | str) -> None:
    """Whole, beside, and renamed into place."""
    private(path.with_suffix(".new"), data).rename(path)


async def cut(reading: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    """Why a stream that has nothing to say ended."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async with asyncio.timeout(PATIENCE):
            await reading
    return reason(ended.value)


async def drained(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def streams(served: Served, client: Forged) -> dict[str, Any]:
    """One open stream of every kind there is, each past its first message."""
    stub = BrokerServiceStub(served.channel(client))
    task = await start_task(stub, client.certificate.serial_number.to_bytes(20).hex())
    watch = stub.WatchLeases(pb.WatchLeasesRequest())
    hold = stub.HoldTask(pb.HoldTaskRequest(task_id=task, grace={"seconds": 60}))
    health = health_pb2_grpc.HealthStub(served.channel(client)).Watch(health_pb2.HealthCheckRequest())
    for call in (watch, hold, health):
        await call.read()
    reflection = reflection_pb2_grpc.ServerReflectionStub(served.channel(client)).ServerReflectionInfo()
    await reflection.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await reflection.read()
    return {"WatchLeases": watch, "HoldTask": hold, "Health.Watch": health, "ServerReflectionInfo": reflection}


async def refused(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return reason(error.value)


async def all_cut(open_: dict[str, Any]) -> set[tuple[grpc.StatusCode, str]]:
    return set(await asyncio.gather(*(cut(drained(call)) for call in open_.values())))


@asynccontextmanager
async def uncut(open_: dict[str, Any], judged: Judged, who: str) -> AsyncIterator[None]:
    """When the block is over, each of these streams of ``who`` was judged anew, and lives."""
    reading = [asyncio.ensure_future(drained(call)) for call in open_.values()]
    yield
    await judged.again(who, 2 * len(reading))
    assert not any(each.done() for each in reading)
    for each in reading:
        each.cancel()


async def test_five_seconds_are_promised_and_kept_by_what_ticks(served: Served) -> None:
    """The tests below show that whoever is not welcome is out at the next tick, of each that has a part in it."""
    every = {job.id: job.trigger.interval for job in served.daemon._ticks.scheduler.get_jobs()}
    judgement = timedelta(seconds=open_streams.RECHECK_SECONDS)
    assert every["identity"] + judgement <= PROMISED / 2
    assert every["denied"] + served.daemon._config.revocation.tick <= PROMISED / 2
    assert every["registry"] + served.daemon._config.revocation.tick <= PROMISED / 2


# ------------------------------------------------------------------ roots


async def test_a_root_that_is_taken_out_cuts_idle_streams_and_refuses_the_next_call(
    served: Served, judged: Judged
) -> None:
    agent = svid()
    stub = BrokerServiceStub(served.channel(agent))
    await stub.WhoAmI(pb.WhoAmIRequest())
    open_ = await streams(served, agent)
    put(served.root / "identity" / "bundle.pem", NEXT.pem)
    served.daemon._identity.look()  # so that "at once" does not begin with waiting for the second
    welcome = judged.welcome[ANALYST]

    assert await refused(stub.WhoAmI(pb.WhoAmIRequest())) == (grpc.StatusCode.UNAUTHENTICATED, "SVID_CHAIN_INVALID")
    assert await all_cut(open_) == {(grpc.StatusCode.UNAUTHENTICATED, "SVID_CHAIN_INVALID")}
    assert judged.welcome[ANALYST] == welcome
    methods = {r["data"]["method"].rpartition("/")[2] for r in await served.audit() if r["type"] == "request.refused"}
    assert {"WhoAmI", "WatchLeases", "HoldTask"} <= methods


async def test_a_root_that_is_added_or_a_twin_that_stays_cuts_nobody(served: Served, judged: Judged) -> None:
    agent = svid()
    async with uncut(await streams(served, agent), judged, ANALYST):
        put(served.root / "identity" / "bundle.pem", CA.pem + NEXT.pem)
        served.daemon._identity.look()
    assert (await BrokerServiceStub(served.channel(NEXT.svid(ANALYST))).WhoAmI(pb.WhoAmIRequest())).spiffe_id == ANALYST


async def test_an_svid_that_ends_cuts_its_silent_stream(served: Served, clock: StoppableClock, judged: Judged) -> None:
    """By the broker's clock; over TLS, which has its own, it is good for longer than the test lasts."""
    short = svid(ANALYST, ends=datetime.now(UTC) + timedelta(minutes=5) - CA.at)
    ends = short.certificate.not_valid_after_utc
    clock.stop_at(ends)
    open_ = await streams(served, short)
    await judged.again(ANALYST, 2 * len(open_))
    clock.stop_at(ends + TICK)
    welcome = judged.welcome[ANALYST]
    assert await all_cut(open_) == {(grpc.StatusCode.UNAUTHENTICATED, "SVID_EXPIRED")}
    assert judged.welcome[ANALYST] == welcome


# ------------------------------------------------------------------ the deny list

DENIED = "denied:\n  - {subject}\n    reason: found in a log\n    who: {who}\n    since: '2026-05-01T12:00:00Z'\n"


async def deny(served: Served, subject: str) -> None:
    people = (served.root / "deploy" / "people.yaml").read_text()
    who = next(
        line.strip().removesuffix(":") for line in people.splitlines() if line.startswith("  ") and line.endswith(":")
    )
    private(served.root / "deploy" / "denied.yaml", DENIED.format(subject=subject, who=who))
    assert await served.daemon.reloader.reload()


def _serial(client: Forged) -> str:
    return f"trust_domain: {DOMAIN}\n    serial: '{client.certificate.serial_number:x}'"


SUBJECTS: dict[str, Callable[[Forged], str]] = {
    "id": lambda client: f"spiffe_id: {ANALYST}",
    "path": lambda client: f"below: spiffe://{DOMAIN}/agent/analyst",
    "certificate": _serial,
}


@pytest.mark.parametrize("kind", SUBJECTS)
async def test_the_denied_lose_their_calls_their_streams_and_their_leases(
    served: Served, judged: Judged, kind: str
) -> None:
    agent, other = svid(), svid(MIGRATOR)
    stub, theirs = (BrokerServiceStub(served.channel(each)) for each in (agent, other))
    grant = await stub.RequestCredential(ask(await start_task(stub)))
    assert served.upstream.alive
    open_, untouched = await streams(served, agent), await streams(served, other)

    await deny(served, SUBJECTS[kind](agent))
    welcome = judged.welcome[ANALYST]

    with pytest.raises(grpc.aio.AioRpcError) as answer:
        await stub.GetLease(pb.GetLeaseRequest(lease_id=grant.lease.id))
    assert reason(answer.value) == (grpc.StatusCode.PERMISSION_DENIED, Reason.AGENT_DENIED)
    assert "found in a log" not in str(answer.value)
    assert await all_cut(open_) == {(grpc.StatusCode.PERMISSION_DENIED, "AGENT_DENIED")}
    assert judged.welcome[ANALYST] == welcome
    await becomes_true(lambda: not served.upstream.alive)

    async with uncut(untouched, judged, MIGRATOR):
        assert (await theirs.WhoAmI(pb.WhoAmIRequest())).spiffe_id == MIGRATOR
    audit = await served.audit()
    assert [r["data"]["cause"] for r in audit if r["type"] == "lease.revoking"] == ["HOLDER_DENIED"]
    came = [r for r in audit if r["type"] == "agent.denied"]
    assert {r["actor"] for r in came} == {ANALYST}
    assert {r["data"]["method"].rpartition("/")[2] for r in came} == {"GetLease", "WatchLeases", "HoldTask"}
    (told,) = [r["data"]["denied"] for r in audit if r["type"] == "deploy.activated" and r["data"]["denied_count"]]
    assert "found in a log" in told[0]


async def test_a_denied_certificate_is_not_its_successor(served: Served) -> None:
    leaked, rotated = svid(), svid()
    stubs = [BrokerServiceStub(served.channel(each)) for each in (leaked, rotated)]
    task = await start_task(stubs[0])
    for number, stub in enumerate(stubs):
        await stub.RequestCredential(ask(task, f"r{number}"))
    assert len(served.upstream.alive) == 2
    await deny(served, _serial(leaked))
    assert (await refused(stubs[0].WhoAmI(pb.WhoAmIRequest())))[1] == Reason.AGENT_DENIED
    assert (await stubs[1].WhoAmI(pb.WhoAmIRequest())).spiffe_id == ANALYST

    async def one_is_left() -> bool:
        # In the ledger, a moment after the upstream.
        return len((await stubs[1].ListLeases(pb.ListLeasesRequest(living_only=True))).leases) == 1

    await eventually(one_is_left)
    assert len(served.upstream.alive) == 1


@pytest.mark.parametrize(
    ("held_up", "told"),
    [
        ("issue", "LEASE_ENDED"),  # its lease was there to be ended
        ("open_intent", "AGENT_DENIED"),  # there was nothing to be ended yet: it is issued, and not delivered
    ],
)
async def test_whoever_was_under_way_when_it_came_into_force_has_nothing_either(
    served: Served, monkeypatch: pytest.MonkeyPatch, held_up: str, told: str
) -> None:
    stub = served.stub()
    task = await start_task(stub)
    owner: Any = served.upstream if held_up == "issue" else served.daemon._store
    work, reached, go_on = getattr(owner, held_up), asyncio.Event(), asyncio.Event()

    async def slow(*args: Any) -> Any:
        reached.set()
        await go_on.wait()
        return await work(*args)

    monkeypatch.setattr(owner, held_up, slow)
    asking = asyncio.ensure_future(stub.RequestCredential(ask(task)))
    await reached.wait()
    await deny(served, f"spiffe_id: {ANALYST}")
    go_on.set()
    assert (await refused(asking))[1] == told
    await becomes_true(lambda: not served.upstream.alive)


async def test_a_denial_that_is_lifted_lets_in_again(served: Served) -> None:
    stub = served.stub()
    await deny(served, f"below: spiffe://{DOMAIN}")
    assert (await refused(stub.WhoAmI(pb.WhoAmIRequest())))[1] == Reason.AGENT_DENIED
    (served.root / "deploy" / "denied.yaml").unlink()
    assert await served.daemon.reloader.reload()
    assert (await stub.WhoAmI(pb.WhoAmIRequest())).spiffe_id == ANALYST


async def test_no_flood_of_strangers_hides_the_denied_from_the_audit_trail(served: Served) -> None:
    stranger, denied = (BrokerServiceStub(served.channel(svid(uri))) for uri in (ANALYST + "/x", ANALYST))
    await deny(served, f"spiffe_id: {ANALYST}")
    for _ in range(30):
        await refused(stranger.WhoAmI(pb.WhoAmIRequest()))
    for _ in range(30):
        await refused(denied.WhoAmI(pb.WhoAmIRequest()))
    assert len([r for r in await served.audit() if r["type"] == "agent.denied"]) == 20  # and the rest is counted
    await served.daemon._upkeep.summarise_refusals(every=True)
    folded = [r for r in await served.audit() if r["type"] == "request.refusals_summarised"]
    assert {"AGENT_DENIED": 10} in [r["data"]["counts"] for r in folded]


async def test_a_bad_deny_list_is_refused_and_the_last_good_one_stays(served: Served) -> None:
    await deny(served, f"spiffe_id: {ANALYST}")
    private(served.root / "deploy" / "denied.yaml", "denied: []\nlifted: all\n")
    assert not await served.daemon.reloader.reload()
    assert (await refused(served.stub().WhoAmI(pb.WhoAmIRequest())))[1] == Reason.AGENT_DENIED


# ------------------------------------------------------------------ federation


@pytest.fixture
async def federated(tmp_path: Path) -> AsyncIterator[Served]:
    identity = {
        "certificate": "identity/broker.pem",
        "private_key": "identity/broker.key",
        "bundles": {DOMAIN: "identity/bundle.pem", "partner.org": "identity/partner.pem"},
        "federates_with": ["partner.org"],
    }
    private(tmp_path / "identity" / "partner.pem", PARTNER.pem)
    async with serve(tmp_path, identity=identity) as running:
        deploy = tmp_path / "deploy"
        rules = "trust_domains:\n  partner.org:\n    allow: [/agent/planner]\n    environments: [dev, staging]\n"
        private(deploy / "trust_domains.yaml", rules)
        text = (deploy / "agents" / "analyst.yaml").read_text().replace(ANALYST, PLANNER)
        private(deploy / "agents" / "partner-planner.yaml", text)
        assert await running.daemon.reloader.reload()
        yield running


async def test_a_partners_agent_is_let_in_as_what_it_is(federated: Served) -> None:
    stub = BrokerServiceStub(federated.channel(PARTNER.svid(PLANNER)))
    assert (await stub.WhoAmI(pb.WhoAmIRequest())).spiffe_id == PLANNER


async def test_a_partners_authority_cannot_name_one_of_ours_nor_we_one_of_theirs(federated: Served) -> None:
    for hostile in (PARTNER.svid(ANALYST), CA.svid(PLANNER)):
        answer = await refused(BrokerServiceStub(federated.channel(hostile)).WhoAmI(pb.WhoAmIRequest()))
        assert answer == (grpc.StatusCode.UNAUTHENTICATED, "SVID_CHAIN_INVALID")


async def test_who_is_not_allowed_of_a_partner_cannot_even_be_registered(federated: Served) -> None:
    stub = BrokerServiceStub(federated.channel(PARTNER.svid("spiffe://partner.org/agent/executor")))
    assert (await refused(stub.WhoAmI(pb.WhoAmIRequest())))[1] == "AGENT_NOT_REGISTERED"
    agents = federated.root / "deploy" / "agents"
    text = (agents / "partner-planner.yaml").read_text().replace("planner", "executor")
    private(agents / "partner-executor.yaml", text)
    assert not await federated.daemon.reloader.reload()
    assert (await refused(stub.WhoAmI(pb.WhoAmIRequest())))[1] == "AGENT_NOT_REGISTERED"


async def test_a_partners_root_that_is_taken_out_cuts_only_the_partner(federated: Served, judged: Judged) -> None:
    ours, theirs = await streams(federated, svid()), await streams(federated, PARTNER.svid(PLANNER))
    successor = authority("partner.org", at=CA.at)
    async with uncut(ours, judged, ANALYST):
        put(federated.root / "identity" / "partner.pem", successor.pem)
        assert await all_cut(theirs) == {(grpc.StatusCode.UNAUTHENTICATED, "SVID_CHAIN_INVALID")}
