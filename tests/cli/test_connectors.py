"""``broker connectors`` against a brokerd: what is promised is shown whole, what is wrong exits 1."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
from click.testing import Result

from broker.api.v1 import connectors_pb2 as pb
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.lease.credential import ContractClass
from broker.ports.connectors import Doubt, Severity
from tests.api.served import Served
from tests.cli.at_the_door import at_the_door, served_quietly
from tests.connectors.fake import contract

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with served_quietly(tmp_path) as running:
        running.upstreams["aws"].contract = replace(
            contract(ContractClass.EXPIRY_ONLY), on_broker_dead=timedelta(milliseconds=1500)
        )
        yield running


@pytest.fixture
def run(served: Served, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``broker connectors`` as dana, a viewer."""
    return partial(at_the_door(served, monkeypatch), "dana", "connectors")


async def test_the_contracts_of_all_and_of_one_in_full(run: Run) -> None:
    lines = (await run("list")).stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["CONNECTOR", "KIND", "ENDS", "REVOKED", "TTL", "BOUND", "TO"],
        ["aws", "aws-sts", "EXPIRY_ONLY", "-", "1s-1h", "none"],
        ["minio", "minio-sts", "IMMEDIATE", "1s", "1s-1h", "none"],
        ["openbao-orders", "vault-database", "IMMEDIATE", "1s", "1s-1h", "none"],
    ]
    assert (await run("show", "aws")).stdout.splitlines() == [
        "aws",
        "  kind            aws-sts",
        "  templates       reports-read",
        "  class           EXPIRY_ONLY: only time ends it",
        "  bound to        nothing: whoever knows it can use it",
        "  TTL             1s to 1h",
        "  past deadline   works for at most 1s",
        "  revoked         works until it expires",
        "  broker dead     works for at most 1.5s past its deadline. The fake upstream ends it by its TTL.",
        "  upstream dead   NOTHING BOUNDS IT. The fake upstream does not die.",
    ]
    found = json.loads((await run("show", "aws", "--format", "json")).stdout)
    assert found["contract"]["boundOnBrokerDead"] == "1.5s"
    assert found["contract"]["boundOnUpstreamDead"] is None
    listed = json.loads((await run("list", "--format", "json")).stdout)
    assert [each["name"] for each in listed] == ["aws", "minio", "openbao-orders"]


async def test_a_name_that_is_none(run: Run) -> None:
    for words in (("show", "nothing"), ("doctor", "nothing")):
        done = await run(*words)
        assert done.exit_code == 3
        assert done.stderr.splitlines() == [
            "error: CONNECTOR_NOT_FOUND: there is no connector 'nothing' in the deploy set in force.",
            "hint: There is: aws, minio, openbao-orders.",
        ]


async def test_what_an_examination_finds_and_how_it_exits(run: Run, served: Served) -> None:
    done = await run("doctor")
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        ["ok       aws", "ok       minio", "ok       openbao-orders"],
    )
    served.upstream.doubts = (Doubt(Severity.WARNING, "It is old.\x1b[2J", "Renew it."),)
    done = await run("doctor", "openbao-orders")
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["warning", "Renew"]
    served.upstream.doubts = (Doubt(Severity.ERROR, "It is wide.", "Make it narrow."),)
    done = await run("doctor", "--format", "json")
    assert done.exit_code == 1
    assert [each["doubts"] for each in json.loads(done.stdout)] == [
        [],
        [],
        [{"severity": "ERROR", "what": "It is wide.", "remedy": "Make it narrow."}],
    ]


async def test_an_agent_does_not_get_to_the_connectors(served: Served) -> None:
    for call, asked in (
        ("ListConnectors", pb.ListConnectorsRequest()),
        ("GetConnector", pb.GetConnectorRequest(name="aws")),
        ("ExamineConnector", pb.ExamineConnectorRequest()),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await getattr(AdminServiceStub(served.channel()), call)(asked)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED  # nothing of it is at the agents' door
    assert served.upstream.calls == []
