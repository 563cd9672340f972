"""The people's door: who comes in there, who does not, and that nobody comes in at the wrong one."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import yaml

from broker.api import authorization
from broker.api.admin_server import ADMIN_SERVICE
from broker.api.authorization import ROLES as METHOD_ROLES
from broker.api.authorization import TABLE, Allowed
from broker.api.door import Door
from broker.api.entrances import AgentsEntrance
from broker.api.server import BROKER_SERVICE, methods_of
from broker.api.v1 import admin_service_pb2 as pb
from broker.api.v1 import broker_service_pb2
from broker.errors import Defect, Denied
from broker.files import Problems
from broker.identity.operator import Role
from broker.keys import new_key
from tests.api.served import (
    ANALYST,
    Served,
    admin_stub,
    credential,
    people_changes,
    person,
    private,
    reason,
    serve,
    svid,
)

UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path, **people_changes(tmp_path)) as running:
        yield running


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def edit_people(served: Served, key: str, **changes: Any) -> None:
    """Change a person of people.yaml (no changes: take it out), and reload."""
    path = served.root / "deploy" / "people.yaml"
    document = yaml.safe_load(path.read_text())
    if changes:
        document["people"][key] |= changes
    else:
        del document["people"][key]
    private(path, yaml.safe_dump(document))
    assert await served.daemon.reloader.reload()


async def test_each_person_is_known_by_their_own_credential(served: Served) -> None:
    kim = await person(served, "kim").GetOperator(pb.GetOperatorRequest())
    assert (kim.key, kim.subject, kim.display_name) == ("kim", "kim", "Kim Adeyemi")
    assert (list(kim.groups), list(kim.roles)) == (["release", "security"], ["security"])
    assert (kim.authenticated_by, kim.tenant) == ("local-credential", "test")
    sam = await person(served, "sam").GetOperator(pb.GetOperatorRequest())
    assert (sam.key, list(sam.roles)) == ("sam", ["operator"])


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (None, "OPERATOR_CREDENTIAL_MISSING"),
        ("nobodys" * 6, "OPERATOR_CREDENTIAL_INVALID"),
        ("", "OPERATOR_CREDENTIAL_INVALID"),
        ("x" * 5000, "OPERATOR_CREDENTIAL_INVALID"),
    ],
)
async def test_nobody_comes_in_without_a_credential(served: Served, token: str | None, expected: str) -> None:
    call = admin_stub(served, token).GetOperator(pb.GetOperatorRequest())
    assert await refused(call) == (UNAUTHENTICATED, expected)
    assert ("anonymous", expected) in await served.refusals()


async def test_a_part_of_a_credential_or_more_than_it_is_none(served: Served) -> None:
    whole = credential(served, "kim")
    for token in (whole[:-1], whole + "=", whole.lower(), whole + whole, " " + whole):
        call = admin_stub(served, token).GetOperator(pb.GetOperatorRequest())
        assert await refused(call) == (UNAUTHENTICATED, "OPERATOR_CREDENTIAL_INVALID")


async def test_two_credentials_in_one_call_are_none(served: Served) -> None:
    stub = person(served, "kim")
    more = (("authorization", f"Bearer {credential(served, 'sam')}"),)
    call = stub.GetOperator(pb.GetOperatorRequest(), metadata=more)
    assert await refused(call) == (UNAUTHENTICATED, "OPERATOR_CREDENTIAL_MISSING")


async def test_wrong_credentials_beyond_the_budget_are_counted(served: Served) -> None:
    stub = admin_stub(served, new_key())
    for _ in range(25):
        await refused(stub.GetOperator(pb.GetOperatorRequest()))
    assert len(await served.refusals()) == 20
    await served.daemon._upkeep.summarise_refusals(every=True)
    (summary,) = [r for r in await served.audit() if r["type"] == "request.refusals_summarised"]
    assert summary["actor"] == "anonymous operators"
    # Agents' strangers have a budget of their own.
    with pytest.raises(grpc.aio.AioRpcError):
        bad = svid(ANALYST, ca=True, usage=("digital_signature", "key_cert_sign"))
        await served.stub(bad).WhoAmI(broker_service_pb2.WhoAmIRequest())
    assert ("anonymous", "SVID_IS_CA") in await served.refusals()


async def test_a_disabled_person_and_one_who_left_are_out_at_the_next_call(tmp_path: Path) -> None:
    """Lee, whom no approval needs."""
    async with serve(tmp_path, **people_changes(tmp_path, "lee", "sam")) as served:
        lee, sam = person(served, "lee"), person(served, "sam")
        await lee.GetOperator(pb.GetOperatorRequest())
        await edit_people(served, "lee", disabled=True)
        assert await refused(lee.GetOperator(pb.GetOperatorRequest())) == (DENIED, "OPERATOR_DISABLED")
        await edit_people(served, "lee")
        assert await refused(lee.GetOperator(pb.GetOperatorRequest())) == (DENIED, "OPERATOR_DISABLED")
        assert (await sam.GetOperator(pb.GetOperatorRequest())).key == "sam"


async def test_a_credential_is_replaced_by_a_reload(served: Served) -> None:
    before = person(served, "kim")
    private(served.root / "operators" / "kim", new_key())
    assert (await before.GetOperator(pb.GetOperatorRequest())).key == "kim"  # not read yet
    await served.daemon.reload()
    assert await refused(before.GetOperator(pb.GetOperatorRequest())) == (
        UNAUTHENTICATED,
        "OPERATOR_CREDENTIAL_INVALID",
    )
    assert (await person(served, "kim").GetOperator(pb.GetOperatorRequest())).key == "kim"
    # What is unfit leaves the last good in force.
    good = credential(served, "kim")
    private(served.root / "operators" / "kim", "short")
    await served.daemon.reload()
    assert (await admin_stub(served, good).GetOperator(pb.GetOperatorRequest())).key == "kim"


# ------------------------------------------------------------------ the wrong door


@pytest.mark.parametrize("method", methods_of(ADMIN_SERVICE))
async def test_agents_find_no_admin_method_at_their_port(served: Served, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.channel().unary_unary(method)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", [*methods_of(BROKER_SERVICE), "/grpc.health.v1.Health/Check"])
async def test_people_find_no_agents_method_at_theirs(served: Served, method: str) -> None:
    person(served, "kim")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.channels[-1].unary_unary(method)(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_an_svid_opens_nothing_at_the_peoples_port(served: Served) -> None:
    agent = svid(ANALYST)
    credentials = grpc.ssl_channel_credentials(served_roots(served), agent.key_pem, agent.pem)
    options = [("grpc.ssl_target_name_override", "localhost")]
    channel = grpc.aio.secure_channel(f"127.0.0.1:{served.daemon.admin_port}", credentials, options=options)
    served.channels.append(channel)
    call = channel.unary_unary(methods_of(ADMIN_SERVICE)[0])(b"")
    assert await refused(call) == (UNAUTHENTICATED, "OPERATOR_CREDENTIAL_MISSING")


async def test_an_operators_credential_opens_nothing_at_the_agents_port(served: Served) -> None:
    bearer = (("authorization", f"Bearer {credential(served, 'kim')}"),)
    call = served.stub().WhoAmI(broker_service_pb2.WhoAmIRequest(), metadata=bearer)
    assert await refused(call) == (UNAUTHENTICATED, "JWT_SVID_UNEXPECTED")


def served_roots(served: Served) -> bytes:
    return (served.root / "identity" / "bundle.pem").read_bytes()


# ------------------------------------------------------------------ the table


def test_every_admin_method_has_roles_and_no_other_has() -> None:
    methods = set(methods_of(ADMIN_SERVICE))
    assert set(METHOD_ROLES) == methods == {name for name, (allowed, _) in TABLE.items() if allowed is Allowed.OPERATOR}


@pytest.mark.parametrize("missing", ["TABLE", "ROLES"])
def test_an_undecided_method_keeps_the_server_from_starting(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = methods_of(ADMIN_SERVICE)[0]
    table = getattr(authorization, missing)
    monkeypatch.setattr(authorization, missing, {name: rule for name, rule in table.items() if name != method})
    with pytest.raises(Defect, match="no authorization rule"):
        authorization.check_complete(methods_of(ADMIN_SERVICE))


def test_a_role_is_needed_where_the_table_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        authorization, "ROLES", {"/s/M": frozenset({Role.SECURITY, Role.OPERATOR}), "/s/N": frozenset()}
    )
    authorization.check_roles("/s/M", frozenset({Role.OPERATOR}))
    authorization.check_roles("/s/N", frozenset())
    for roles in (frozenset(), frozenset({Role.VIEWER, Role.APPROVER, Role.AUDITOR})):
        with pytest.raises(Denied, match="operator, security") as caught:
            authorization.check_roles("/s/M", roles)
        assert caught.value.reason == "ROLE_REQUIRED"


def test_a_service_is_not_served_behind_the_other_door() -> None:
    agents: Any = AgentsEntrance(lambda *_: None, None, None, None, "t")  # type: ignore[arg-type, return-value]
    door = Door(agents, *(None,) * 5, "t")  # type: ignore[arg-type]
    with pytest.raises(Defect, match="behind its own door"):
        door.handlers(ADMIN_SERVICE, *(type("Part", (), {m.name: None for m in ADMIN_SERVICE.methods}),))


# ------------------------------------------------------------------ the configuration


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty or not set"),
        ("dGVzdA==", "has 4 bytes, 32 are needed"),
        ("A" * 44, "is not random"),
        ("not base64 at all!", "is not base64 text"),
    ],
)
async def test_an_unfit_credential_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    changes = people_changes(tmp_path)
    private(tmp_path / "operators" / "kim", text)
    with pytest.raises(Problems, match=told) as caught:
        async with serve(tmp_path, **changes):
            pass
    (problem,) = caught.value.problems
    line = (tmp_path / "brokerd.yaml").read_text().splitlines()[problem.line - 1]
    assert (problem.field, line.split(":")[0].strip()) == ("operators.kim", "kim")
    assert not text or text not in str(problem)


async def test_credentials_of_nobody_and_shared_ones_are_told(tmp_path: Path) -> None:
    changes = people_changes(tmp_path, "dana", "nobody")
    with pytest.raises(Problems, match=r"operators.nobody: is nobody in people.yaml"):
        async with serve(tmp_path, **changes):
            pass
    changes = people_changes(tmp_path, "dana", "kim")
    private(tmp_path / "operators" / "kim", credential_text(tmp_path, "dana"))
    with pytest.raises(Problems, match=r"operators.\w+: is the credential of \w+ too"):
        async with serve(tmp_path, **changes):
            pass


def credential_text(root: Path, key: str) -> str:
    return (root / "operators" / key).read_text()


# ------------------------------------------------------------------ secrecy


async def test_no_credential_is_in_a_log_an_error_or_the_trail(tmp_path: Path) -> None:
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    try:
        async with serve(tmp_path, **people_changes(tmp_path)) as served:
            canaries = [credential(served, key) for key in ("dana", "sam", "kim")] + [wrong := new_key()]
            await person(served, "kim").GetOperator(pb.GetOperatorRequest())
            for call in (
                admin_stub(served, wrong).GetOperator(pb.GetOperatorRequest()),
                served.stub().WhoAmI(
                    broker_service_pb2.WhoAmIRequest(), metadata=(("authorization", f"Bearer {canaries[0]}"),)
                ),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert not [each for each in canaries if each in str(caught.value)]
            trail = json.dumps(await served.audit())
        ledger = (tmp_path / "state" / "ledger.sqlite3").read_bytes() + (tmp_path / "audit.jsonl").read_bytes()
    finally:
        structlog.reset_defaults()
    assert "GetOperator" in said.getvalue()
    for canary in canaries:
        assert canary not in said.getvalue()
        assert canary not in trail
        assert canary.encode() not in ledger
