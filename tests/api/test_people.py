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
from broker.clock import SystemClock
from broker.dev.identity_provider import ON_BEHALF_OF, IdentityProvider
from broker.dev.loopback import free_port
from broker.errors import Defect, Denied
from broker.identity.agent import Person
from broker.identity.operator import Role
from tests.api.served import (
    ANALYST,
    ISSUER,
    Served,
    admin_stub,
    people_changes,
    person,
    private,
    reason,
    serve,
    svid,
    token,
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


async def test_each_person_is_known_by_their_own_login(served: Served) -> None:
    kim = await person(served, "kim").GetOperator(pb.GetOperatorRequest())
    assert (kim.key, kim.subject, kim.display_name) == ("kim", "kim", "Kim Adeyemi")
    assert (list(kim.groups), list(kim.roles)) == (["release", "security"], ["security"])
    assert (kim.issuer, kim.authenticated_by, kim.tenant) == ("https://id.dev.broker.internal", "id-token", "test")
    sam = await person(served, "sam").GetOperator(pb.GetOperatorRequest())
    assert (sam.key, list(sam.roles)) == ("sam", ["operator"])


async def test_a_group_is_held_if_both_people_yaml_and_the_provider_say_so(served: Served) -> None:
    for groups, held in (
        (["security"], ["security"]),
        (["security", "operations", "root"], ["security"]),  # people.yaml is the upper bound
        ([], []),
    ):
        stub = admin_stub(served, token(served, "kim", claims={"groups": groups}))
        told = await stub.GetOperator(pb.GetOperatorRequest())
        assert (list(told.groups), list(told.roles)) == (held, held)
        if not held:
            assert await refused(stub.ListSuspensions(pb.ListSuspensionsRequest())) == (DENIED, "ROLE_REQUIRED")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "ID_TOKEN_MISSING"),
        ("nobodys" * 6, "ID_TOKEN_MALFORMED"),
        ("", "ID_TOKEN_MALFORMED"),
        ("x" * 20_000, "ID_TOKEN_MALFORMED"),
    ],
)
async def test_nobody_comes_in_without_a_login(served: Served, text: str | None, expected: str) -> None:
    call = admin_stub(served, text).GetOperator(pb.GetOperatorRequest())
    assert await refused(call) == (UNAUTHENTICATED, expected)
    assert ("anonymous", expected) in await served.refusals()


async def test_two_tokens_in_one_call_are_none(served: Served) -> None:
    more = (("authorization", f"Bearer {token(served, 'sam')}"),)
    call = person(served, "kim").GetOperator(pb.GetOperatorRequest(), metadata=more)
    assert await refused(call) == (UNAUTHENTICATED, "ID_TOKEN_MISSING")


async def test_who_logs_in_and_is_not_in_people_yaml_is_refused_by_name(served: Served) -> None:
    served.identity_provider.know([*served.identity_provider.people.values(), Person("x", "mallory", "Mallory")])
    call = admin_stub(served, token(served, "mallory", claims={"groups": ["security"]}))
    assert await refused(call.GetOperator(pb.GetOperatorRequest())) == (DENIED, "PERSON_UNKNOWN")
    assert ("https://id.dev.broker.internal#mallory", "PERSON_UNKNOWN") in await served.refusals()


async def test_the_token_with_which_an_agent_acts_for_its_human_opens_nothing_here(served: Served) -> None:
    theirs = served.identity_provider.id_token("kim", ON_BEHALF_OF)
    call = admin_stub(served, theirs).GetOperator(pb.GetOperatorRequest())
    assert await refused(call) == (UNAUTHENTICATED, "ID_TOKEN_AUDIENCE")
    assert ("anonymous", "ID_TOKEN_AUDIENCE") in await served.refusals()


async def test_wrong_tokens_beyond_the_budget_are_counted(served: Served) -> None:
    stub = admin_stub(served, "guessed")
    for _ in range(25):
        await refused(stub.GetOperator(pb.GetOperatorRequest()))
    assert len(await served.refusals()) == 20
    await served.daemon._upkeep.summarise_refusals(every=True)
    (summary,) = [r for r in await served.audit() if r["type"] == "request.refusals_summarised"]
    assert summary["actor"] == "anonymous people"
    # Agents' strangers have a budget of their own.
    with pytest.raises(grpc.aio.AioRpcError):
        bad = svid(ANALYST, ca=True, usage=("digital_signature", "key_cert_sign"))
        await served.stub(bad).WhoAmI(broker_service_pb2.WhoAmIRequest())
    assert ("anonymous", "SVID_IS_CA") in await served.refusals()


async def test_a_providers_new_key_is_asked_for_and_a_withdrawn_one_is_refused(tmp_path: Path) -> None:
    async with serve(tmp_path, **people_changes(tmp_path)) as served:
        before = person(served, "kim")
        await before.GetOperator(pb.GetOperatorRequest())
        served.identity_provider.rotate(withdraw=True)
        assert served.daemon._people is not None
        await served.daemon._people._keys.refresh()
        assert await refused(before.GetOperator(pb.GetOperatorRequest())) == (UNAUTHENTICATED, "ID_TOKEN_KEY_UNKNOWN")
        assert (await person(served, "kim").GetOperator(pb.GetOperatorRequest())).key == "kim"


async def test_without_its_provider_brokerd_starts_and_agents_are_served_and_nobody_logs_in(tmp_path: Path) -> None:
    changes = people_changes(tmp_path)
    (url,) = changes["people"]["issuers"]
    elsewhere = {"issuers": {url: {**ISSUER, "jwks_uri": f"http://127.0.0.1:{free_port()}/"}}}
    async with serve(tmp_path, **{**changes, "people": elsewhere}) as served:
        call = person(served, "kim").GetOperator(pb.GetOperatorRequest())
        assert await refused(call) == (grpc.StatusCode.UNAVAILABLE, "ISSUER_KEYS_UNAVAILABLE")
        assert any(url in warning for warning in served.daemon._warnings())
        assert served.daemon._problems() == []
        assert (await served.stub().WhoAmI(broker_service_pb2.WhoAmIRequest())).spiffe_id == ANALYST


async def test_a_token_of_another_provider_that_nobody_configured(served: Served) -> None:
    stranger = IdentityProvider("https://login.example.com", served.identity_provider.people.values(), SystemClock())
    call = admin_stub(served, stranger.id_token("kim")).GetOperator(pb.GetOperatorRequest())
    assert await refused(call) == (UNAUTHENTICATED, "ID_TOKEN_ISSUER_UNKNOWN")


async def test_a_disabled_person_and_one_who_left_are_out_at_the_next_call(tmp_path: Path) -> None:
    """Lee, whom no approval needs."""
    async with serve(tmp_path, **people_changes(tmp_path)) as served:
        lee, sam = person(served, "lee"), person(served, "sam")
        await lee.GetOperator(pb.GetOperatorRequest())
        await edit_people(served, "lee", disabled=True)
        assert await refused(lee.GetOperator(pb.GetOperatorRequest())) == (DENIED, "OPERATOR_DISABLED")
        await edit_people(served, "lee", disabled=False, until="2026-01-01T00:00:00Z")
        assert await refused(lee.GetOperator(pb.GetOperatorRequest())) == (DENIED, "OPERATOR_DISABLED")
        await edit_people(served, "lee", until="2999-01-01T00:00:00Z")
        assert (await lee.GetOperator(pb.GetOperatorRequest())).key == "lee"
        await edit_people(served, "lee")
        assert await refused(lee.GetOperator(pb.GetOperatorRequest())) == (DENIED, "PERSON_UNKNOWN")
        assert (await sam.GetOperator(pb.GetOperatorRequest())).key == "sam"


# ------------------------------------------------------------------ the wrong door


async def test_agents_find_no_admin_method_at_their_port(served: Served) -> None:
    channel = served.channel()
    for method in methods_of(ADMIN_SERVICE):
        assert await code_of(channel.unary_unary(method)(b"")) is grpc.StatusCode.UNIMPLEMENTED, method


async def test_people_find_no_agents_method_at_theirs(served: Served) -> None:
    person(served, "kim")
    for method in (*methods_of(BROKER_SERVICE), "/grpc.health.v1.Health/Check"):
        assert await code_of(served.channels[-1].unary_unary(method)(b"")) is grpc.StatusCode.UNIMPLEMENTED, method


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


async def test_an_svid_opens_nothing_at_the_peoples_port(served: Served) -> None:
    agent = svid(ANALYST)
    credentials = grpc.ssl_channel_credentials(served_roots(served), agent.key_pem, agent.pem)
    options = [("grpc.ssl_target_name_override", "localhost")]
    channel = grpc.aio.secure_channel(f"127.0.0.1:{served.daemon.doors.admin_port}", credentials, options=options)
    served.channels.append(channel)
    call = channel.unary_unary(methods_of(ADMIN_SERVICE)[0])(b"")
    assert await refused(call) == (UNAUTHENTICATED, "ID_TOKEN_MISSING")


async def test_a_login_opens_nothing_at_the_agents_port(served: Served) -> None:
    bearer = (("authorization", f"Bearer {token(served, 'kim')}"),)
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
    door = Door(agents, *(None,) * 6, "t")  # type: ignore[arg-type]
    with pytest.raises(Defect, match="behind its own door"):
        door.handlers(ADMIN_SERVICE, *(type("Part", (), {m.name: None for m in ADMIN_SERVICE.methods}),))


# ------------------------------------------------------------------ secrecy


async def test_no_token_is_in_a_log_an_error_or_the_trail(tmp_path: Path) -> None:
    said = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(said))
    try:
        async with serve(tmp_path, **people_changes(tmp_path)) as served:
            wrong = served.identity_provider.id_token("dana", ON_BEHALF_OF)
            canaries = [token(served, "dana"), good := token(served, "kim"), wrong]
            await admin_stub(served, good).GetOperator(pb.GetOperatorRequest())
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


# ------------------------------------------------------------------ principals and RPCs

# Of deploy/dev, with the roles that ROLES gives their groups; and people who are nobody here.
PRINCIPALS: dict[str, set[str]] = {"dana": {"viewer"}, "sam": {"operator"}, "kim": {"security"}, "ravi": {"security"}}


async def test_who_may_call_what(served: Served) -> None:
    """Every principal, every RPC, with an empty request: who is let in hears about its fields, others about itself."""
    stranger = Person("x", "mallory", "Mallory")
    served.identity_provider.know([*served.identity_provider.people.values(), stranger])
    await edit_people(served, "lee", disabled=True)
    before = await changes_of(served)
    admin_stub(served, None)
    channel = served.channels[-1]
    for method in methods_of(ADMIN_SERVICE):
        rpc, needed = channel.unary_unary(method), METHOD_ROLES[method]
        for who, roles in PRINCIPALS.items():
            try:
                await rpc(b"", metadata=bearer(served, who))
                answer = (grpc.StatusCode.OK, "")
            except grpc.aio.AioRpcError as error:
                answer = reason(error)
            allowed = not needed or bool(needed & roles)
            expected = {(grpc.StatusCode.OK, ""), (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")}
            assert answer in expected if allowed else answer == (DENIED, "ROLE_REQUIRED"), (method, who)
        for who, told in (("mallory", "PERSON_UNKNOWN"), ("lee", "OPERATOR_DISABLED")):
            assert await refused(rpc(b"", metadata=bearer(served, who))) == (DENIED, told)
        assert await refused(rpc(b"")) == (UNAUTHENTICATED, "ID_TOKEN_MISSING")
    assert await changes_of(served) == before


async def changes_of(served: Served) -> int:
    """How many events of the trail are about something that was changed."""
    return len([each for each in await served.audit() if each["type"] not in ("request.refused", "admin.read")])


def bearer(served: Served, who: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token(served, who)}"),)
