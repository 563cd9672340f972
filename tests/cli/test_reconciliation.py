"""``broker connectors reconcile|unknown`` against a brokerd: found, ended, told; and who may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from click.testing import Result

from broker.api.v1 import reconciliation_pb2 as pb
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.revocation.sweep_limit import SweepLimit
from tests.api.served import Served, person, reason
from tests.cli.at_the_door import at_the_door, served_quietly
from tests.connectors.fake import InventoryMishap
from tests.patience import eventually

Run = Callable[..., Awaitable[Result]]
OLD = timedelta(hours=1)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path) as running:
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``broker connectors`` as sam, an operator."""
    invoke = at_the_door(served, monkeypatch)
    return lambda *words, who="sam": invoke(who, "connectors", *words)


def plant(served: Served, name: str = "lost") -> str:
    attempt = served.daemon._mark.attempt(name)
    now = served.upstream.clock.now()
    served.upstream.plant(attempt, now + OLD, born=now - OLD)
    return attempt


async def test_what_is_found_and_what_became_of_it(run: Run, served: Served) -> None:
    attempt = plant(served)
    done = await run("reconcile", "openbao-orders")
    assert (done.exit_code, [line.split() for line in done.stdout.splitlines()]) == (
        0,
        [
            ["CONNECTOR", "LISTED", "FOUND", "YOUNG", "FOREIGN", "MISSING"],
            ["openbao-orders", "1", "1", "0", "0", "0"],
        ],
    )

    async def over() -> bool:
        return not json.loads((await run("unknown", "--living", "--format", "json")).stdout)

    await eventually(over)
    assert attempt not in served.upstream.alive
    (found,) = json.loads((await run("unknown", "--format", "json", who="dana")).stdout)
    assert (found["attemptId"], found["name"], found["why"], found["outcome"]) == (
        attempt,
        f"up-{attempt}",
        "UNKNOWN",
        "REVOKED",
    )
    row = (await run("unknown")).stdout.splitlines()[1].split()
    assert (row[1], row[3], row[4], row[-1]) == ("openbao-orders", "UNKNOWN", "REVOKED", f"up-{attempt}")
    ((actor, data),) = [
        (each["actor"], each["data"]) for each in await served.audit() if each["type"] == "upstream.reconciled"
    ]
    assert actor.endswith("#sam")
    assert (data["connector"], data["found"]) == ("openbao-orders", 1)


async def test_a_mass_of_unknown_ones_is_ended_when_their_number_is_named(run: Run, served: Served) -> None:
    served.daemon._reconciler.limit = SweepLimit(at_most=1)
    lost = {plant(served, name) for name in ("lost", "stray")}
    done = await run("reconcile", "openbao-orders")
    assert done.exit_code == 1
    assert "reconcile openbao-orders --sweep 2" in done.stderr
    assert lost <= served.upstream.alive.keys()
    assert any("2 upstream are unknown to the ledger" in each for each in served.daemon._warnings())
    assert (await run("reconcile", "--sweep", "2")).exit_code == 2  # of which connector?
    assert (await run("reconcile", "openbao-orders", "--sweep", "2", who="dana")).exit_code != 0  # no operator
    assert lost <= served.upstream.alive.keys()
    assert (await run("reconcile", "openbao-orders", "--sweep", "2")).exit_code == 0

    async def gone() -> bool:
        return not lost & served.upstream.alive.keys()

    await eventually(gone)
    told = [(each["type"], each["actor"]) for each in await served.audit() if "upstream.sweep" in each["type"]]
    assert [type_ for type_, _ in told] == ["upstream.sweep_braked", "upstream.sweep_allowed"]
    assert told[1][1].endswith("#sam")


async def test_how_many_may_be_swept_is_said_of_one_connector(served: Served) -> None:
    plant(served)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await person(served, "sam").RunReconciliation(pb.RunReconciliationRequest(request_id="r1", sweep=2))
    assert reason(refused.value)[1] == "FIELD_INVALID"
    assert ("inventory", "") not in served.upstream.calls


async def test_all_at_once_and_one_that_cannot_tell_or_fails(run: Run, served: Served) -> None:
    served.upstream.inventory_mishaps.append(InventoryMishap.BROKEN)
    served.upstreams["aws"].inventory_mishaps.append(InventoryMishap.CANNOT_TELL)
    done = await run("reconcile")
    assert done.exit_code == 1
    assert [line.split() for line in done.stdout.splitlines()[1:]] == [
        ["aws", "cannot", "tell"],
        ["minio", "0", "0", "0", "0", "0"],
        ["openbao-orders", "FAILED"],
    ]
    assert "openbao-orders:" in done.stderr


async def test_a_viewer_looks_and_does_not_reconcile(run: Run, served: Served) -> None:
    plant(served)
    refused = await run("reconcile", who="dana")
    assert "ROLE_REQUIRED" in refused.stderr
    assert ("inventory", "") not in served.upstream.calls
    assert (await run("unknown", who="dana")).exit_code == 0


async def test_a_name_that_is_none(run: Run) -> None:
    done = await run("reconcile", "nothing")
    assert done.exit_code == 3
    assert "CONNECTOR_NOT_FOUND" in done.stderr


async def test_pages(served: Served) -> None:
    for number in range(5):
        plant(served, f"n{number}")
    stub = person(served, "sam")
    await stub.RunReconciliation(pb.RunReconciliationRequest(request_id="q1"))
    first = await stub.ListUnknown(pb.ListUnknownRequest(page_size=3))
    rest = await stub.ListUnknown(pb.ListUnknownRequest(page_size=3, page_token=first.next_page_token))
    names = [each.attempt_id for each in (*first.unknown, *rest.unknown)]
    assert len(names) == len(set(names)) == 5
    assert rest.next_page_token == ""
    with pytest.raises(grpc.aio.AioRpcError) as wrong:
        await stub.ListUnknown(pb.ListUnknownRequest(page_token="nothing"))
    assert reason(wrong.value)[1] == "PAGE_TOKEN_INVALID"


async def test_an_agent_does_not_get_to_it(served: Served) -> None:
    for call, asked in (
        ("RunReconciliation", pb.RunReconciliationRequest(request_id="q1")),
        ("ListUnknown", pb.ListUnknownRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(AdminServiceStub(served.channel()), call)(asked)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert served.upstream.calls == []
