"""Canaries at the people's door of a whole brokerd, with a fake upstream that lies and leaks when told."""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from broker.api.v1 import broker_service_pb2 as service
from broker.api.v1 import canaries_pb2 as pb
from broker.api.v1 import connectors_pb2
from broker.keys import new_key
from tests.api.served import ANALYST, DOMAIN, Served, people_changes, person, private, reason, serve
from tests.connectors.fake import FakeConnector, RevokeMishap, UseMishap
from tests.patience import PATIENCE, eventually

NAME = "openbao-orders"
WITHIN, LATE = pb.CanaryMeasurement.OUTCOME_WITHIN, pb.CanaryMeasurement.OUTCOME_LATE
REVOKE = pb.CANARY_KIND_ON_REVOKE


def upstream(served: Served) -> FakeConnector:
    found = served.daemon._pool.find(NAME)
    assert isinstance(found, FakeConnector)
    return found


async def run(served: Served, key: str = "sam", name: str = "c1", **changes: Any) -> pb.CanaryMeasurement:
    """What it came to, when it is over."""
    request = pb.RunCanaryRequest(**{"request_id": name, "connector": NAME, "kind": REVOKE, **changes})
    async with asyncio.timeout(PATIENCE):
        while not (answer := await person(served, key).RunCanary(request)).HasField("measurement"):
            continue
    return answer.measurement


async def measured(served: Served) -> pb.CanaryMeasurement:
    """One that can tell: on a machine that stands still for longer than the bound none can."""
    for number in range(20):
        found = await run(served, name=f"c{number}")
        if found.outcome != pb.CanaryMeasurement.OUTCOME_UNMEASURED:
            break
    return found


async def test_an_operator_has_a_contract_measured_and_everybody_sees_it(tmp_path: Path) -> None:
    async with serve(tmp_path, **people_changes(tmp_path)) as served:
        sam = person(served, "sam")
        before = (await sam.GetConnector(connectors_pb2.GetConnectorRequest(name=NAME))).contract
        assert not before.HasField("measured_on_revoke")
        found = await measured(served)
        assert (found.outcome, found.connector, found.kind) == (WITHIN, NAME, REVOKE), found.why
        assert found.HasField("measured")
        assert found.asked_by.endswith("#sam")
        canary = await sam.GetCanary(pb.GetCanaryRequest(connector=NAME))
        assert canary.measurements[0] == found
        assert list(canary.canary.measured) == [found]
        other, listed = (await sam.ListCanaries(pb.ListCanariesRequest())).canaries
        assert (other.connector, list(other.newest)) == ("minio", [])
        assert (listed.connector, listed.template, list(listed.newest)) == (NAME, "orders-readonly", [found])
        after = (await sam.GetConnector(connectors_pb2.GetConnectorRequest(name=NAME))).contract
        assert (after.measured_on_revoke, after.measured_on_revoke_time) == (found.measured, found.tell_time)
        templates = await served.stub(ANALYST).ListTemplates(service.ListTemplatesRequest())
        shown = {each.name: each.contract.measured_on_revoke for each in templates.templates}
        assert shown["orders-readonly"] == found.measured
        metrics = (await served.daemon._scrape()).decode()
        assert f'broker_canary_bound_broken{{connector="{NAME}",kind="ON_REVOKE"}} 0.0' in metrics
        assert f'broker_canaries_total{{connector="{NAME}",kind="ON_REVOKE",outcome="WITHIN"}} 1.0' in metrics


@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        ({"connector": "aws"}, grpc.StatusCode.NOT_FOUND, "CANARY_NOT_FOUND"),
        ({"connector": "nobody"}, grpc.StatusCode.NOT_FOUND, "CANARY_NOT_FOUND"),
        ({"request_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
        ({"kind": 9}, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID"),
    ],
)
async def test_what_is_no_canary_is_refused(
    tmp_path: Path, changes: dict[str, Any], code: grpc.StatusCode, why: str
) -> None:
    async with serve(tmp_path, **people_changes(tmp_path)) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await run(served, **changes)
        assert reason(refused.value) == (code, why)
        assert upstream(served).calls == [] or all(name == "tend" for name, _ in upstream(served).calls)


async def test_no_workload_comes_in_as_the_broker(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.stub(f"spiffe://{DOMAIN}/jit-broker/canary").WhoAmI(service.WhoAmIRequest())
        assert reason(refused.value) == (grpc.StatusCode.PERMISSION_DENIED, "AGENT_NOT_REGISTERED")
        assert "the broker's own id" in (refused.value.details() or "")


async def test_a_broken_bound_is_an_alarm_on_readyz(tmp_path: Path) -> None:
    changes = people_changes(tmp_path)
    async with serve(tmp_path, **changes) as served:
        upstream(served).revoke_mishaps.append(RevokeMishap.LIES)
        found = await run(served)
        assert found.outcome == LATE
        answer = await asyncio.to_thread(_readyz, changes["listen"]["operations"])
        assert [each for each in answer["warnings"] if f"contract of connector {NAME} is not kept" in each]
        contract = (await person(served, "sam").GetConnector(connectors_pb2.GetConnectorRequest(name=NAME))).contract
        assert contract.measured_broken
        assert (
            'broker_canary_bound_broken{connector="openbao-orders",kind="ON_REVOKE"} 1.0'
            in (await served.daemon._scrape()).decode()
        )


def _readyz(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{address}/readyz") as answer:
        return dict(json.load(answer))


async def test_the_secret_of_a_canary_is_left_nowhere(tmp_path: Path) -> None:
    written = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    changes = people_changes(tmp_path) | {"audit": {"export_file": str(tmp_path / "audit.jsonl")}}
    answers = []
    try:
        async with serve(tmp_path, **changes) as served:
            answers.append(await run(served, name="c1"))
            upstream(served).use_mishaps.extend([None, UseMishap.DEFECT, UseMishap.DEFECT])
            answers.append(await run(served, name="c2"))  # an adapter that breaks with the secret in its text
            upstream(served).use_mishaps.append(UseMishap.DEFECT)
            answers.append(await run(served, name="c3"))
            secrets = [f"password-{attempt}" for name, attempt in upstream(served).calls if name == "issue"]
            assert len(secrets) == 3
            await served.daemon._upkeep.export()
            left = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
            left |= {"metrics": await served.daemon._scrape(), "answers": repr(answers).encode()}
    finally:
        structlog.reset_defaults()
    left["log"] = written.getvalue().encode()
    assert b"the connector raised in use" in left["log"]
    assert {name for name, data in left.items() for secret in secrets if secret.encode() in data} == set()


async def test_what_a_brokerd_that_is_killed_in_a_run_leaves_is_ended_by_the_next(tmp_path: Path) -> None:
    key = {"keys": {"ledger": [f"file:{tmp_path}/kept.key"]}}
    private(tmp_path / "kept.key", new_key())
    first, second = (tmp_path / name for name in ("first", "second"))
    for root in (first, second):
        root.mkdir()
    async with serve(first, **people_changes(first), **key) as served:
        fake = upstream(served)
        fake.use_mishaps.append(UseMishap.HANG)
        asked = asyncio.ensure_future(run(served))
        await fake.hanging.wait()
        # What is on disk at this moment is what a kill -9 leaves; the one that hangs never gets to clean up.
        (second / "state").mkdir(mode=0o700)
        with (
            sqlite3.connect(first / "state" / "ledger.sqlite3") as ledger,
            sqlite3.connect(second / "state" / "ledger.sqlite3") as left,
        ):
            ledger.backup(left)
        ledger.close()
        left.close()
        (second / "state" / "ledger.sqlite3").chmod(0o600)
        assert len(fake.alive) == 1
        async with serve(second, build=lambda spec: fake, **people_changes(second), **key):
            await eventually(lambda: _none_alive(fake))
        asked.cancel()


async def _none_alive(fake: FakeConnector) -> bool:
    return not fake.alive
