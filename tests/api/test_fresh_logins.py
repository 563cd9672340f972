"""What takes a login of its own: what is a proof and what is not, and that one that is none changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import admin_service_pb2 as admin
from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, RESUME_SUSPENSION, nonce_of
from broker.clock import SystemClock
from broker.dev.identity_provider import ON_BEHALF_OF
from broker.errors import Tampered
from tests.api.served import (
    ANALYST,
    DECIDING,
    ISSUER,
    Served,
    approval,
    ask,
    error_info,
    fresh,
    gate,
    people_changes,
    person,
    reason,
    resumption,
    serve,
    start_task,
    token,
)

DENIED, UNAUTHENTICATED = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    changes = people_changes(tmp_path)
    (url,) = changes["people"]["issuers"]
    strong = {**ISSUER, "amr": ["mfa"], "acr": ["phr"]}
    async with serve(tmp_path, **{**changes, "roles": DECIDING, "people": {"issuers": {url: strong}}}) as running:
        gate(running, staging=("sre",))
        yield running


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def filed(served: Served) -> Any:
    stub = served.stub(ANALYST)
    return (await stub.RequestCredential(ask(await start_task(stub), environment="staging"))).access_request


STRONG: dict[str, Any] = {"acr": "phr", "amr": ("pwd", "mfa")}
Proof = Callable[[Served, str], str]


def _older(served: Served, nonce: str) -> str:
    return token(served, "sam", nonce, auth_time=SystemClock().now() - timedelta(minutes=6), **STRONG)


def _before(served: Served, nonce: str) -> str:
    return token(served, "sam", nonce, auth_time=SystemClock().now() - timedelta(minutes=1), **STRONG)


def _of_agents(served: Served, nonce: str) -> str:
    return served.identity_provider.id_token("sam", ON_BEHALF_OF, nonce, **STRONG)


NO_PROOF: list[tuple[str, str, Proof]] = [
    ("none", "FRESH_LOGIN_REQUIRED", lambda s, nonce: ""),
    ("the cached login", "ID_TOKEN_NONCE", lambda s, nonce: token(s, "sam", **STRONG)),
    ("of another act", "ID_TOKEN_NONCE", lambda s, nonce: token(s, "sam", nonce_of("Other", {}), **STRONG)),
    ("another person's", "FRESH_LOGIN_OF_ANOTHER", lambda s, nonce: token(s, "kim", nonce, **STRONG)),
    ("of six minutes ago", "ID_TOKEN_TOO_OLD", _older),
    ("from before it was filed", "FRESH_LOGIN_TOO_EARLY", _before),
    ("without a second factor", "FRESH_LOGIN_TOO_WEAK", lambda s, nonce: token(s, "sam", nonce, acr="phr")),
    ("of a weaker class", "FRESH_LOGIN_TOO_WEAK", lambda s, nonce: token(s, "sam", nonce, amr=("mfa",))),
    ("of agents", "ID_TOKEN_AUDIENCE", _of_agents),
    ("nonsense", "ID_TOKEN_MALFORMED", lambda s, nonce: "nonsense"),
]


async def test_what_is_no_fresh_login_approves_nothing(served: Served) -> None:
    request, sam = await filed(served), person(served, "sam")
    nonce = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": request.id, "digest": request.digest})
    for name, expected, proof in NO_PROOF:
        call = sam.ApproveAccessRequest(approval(served, "sam", request, fresh_id_token=proof(served, nonce)))
        assert (await refused(call))[1] == expected, name
        assert ("https://id.dev.broker.internal#sam", expected) in await served.refusals()
    now = await sam.GetAccessRequest(requests_pb.GetAccessRequestRequest(access_request_id=request.id))
    assert not now.votes and now.access_request.state == request.STATE_AWAITING_APPROVAL


async def test_the_refusal_tells_the_nonce_to_log_in_with(served: Served) -> None:
    request, sam = await filed(served), person(served, "sam")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sam.ApproveAccessRequest(approval(served, "sam", request, fresh_id_token=""))
    nonce = error_info(caught.value).metadata["nonce"]
    proof = token(served, "sam", nonce, **STRONG)
    approved = await sam.ApproveAccessRequest(approval(served, "sam", request, fresh_id_token=proof))
    assert approved.state == approved.STATE_APPROVED


async def test_the_signed_token_is_the_record_and_is_used_once(served: Served, tmp_path: Path) -> None:
    request, sam, kim = await filed(served), person(served, "sam"), person(served, "kim")
    fields = {"access_request_id": request.id, "digest": request.digest}
    proof = token(served, "sam", nonce_of(APPROVE_ACCESS_REQUEST, fields), **STRONG)
    await sam.ApproveAccessRequest(approval(served, "sam", request, fresh_id_token=proof))
    with sqlite3.connect(tmp_path / "state" / "ledger.sqlite3") as ledger:
        ((kept, about, who),) = ledger.execute("SELECT token, about, subject FROM fresh_logins").fetchall()
    assert (about, who) == (request.id, "sam") and proof.split(".")[1] not in kept
    store = served.daemon._store
    assert store is not None
    assert await store.fresh_logins("test", request.id) == [("https://id.dev.broker.internal", "sam", proof)]
    with sqlite3.connect(tmp_path / "state" / "ledger.sqlite3") as ledger:
        ledger.execute("UPDATE fresh_logins SET subject = 'kim'")
    with pytest.raises(Tampered):
        await store.fresh_logins("test", request.id)
    trail = await served.audit()
    (voted,) = [each for each in trail if each["type"] == "access.voted"]
    assert len(voted["data"]["fresh_login"]) == 64 and voted["data"]["how"] == "fresh-id-token"
    assert proof not in json.dumps(trail)
    await kim.GetOperator(admin.GetOperatorRequest())


async def test_two_people_resume_everything_each_by_a_login_of_their_own(served: Served) -> None:
    sam, kim = person(served, "sam"), person(served, "kim")
    stop = admin.SuspendRequest(request_id="s", kind="KIND_EVERYTHING", reason="fire")
    suspension = (await sam.Suspend(stop)).suspension.id  # being logged in is enough to stop
    said = {"suspension_id": suspension, "reason": "it is well"}
    nonce = nonce_of(RESUME_SUSPENSION, said)
    first = resumption(served, "sam", suspension, fresh_id_token=token(served, "sam", nonce, **STRONG))
    begun = await sam.Resume(first)
    assert (await sam.Resume(first)).suspension == begun.suspension  # the same word, sent again
    borrowed = resumption(served, "kim", suspension, fresh_id_token=first.fresh_id_token)
    assert await refused(kim.Resume(borrowed)) == (DENIED, "FRESH_LOGIN_OF_ANOTHER")
    cached = resumption(served, "kim", suspension, fresh_id_token=token(served, "kim", **STRONG))
    assert await refused(kim.Resume(cached)) == (UNAUTHENTICATED, "ID_TOKEN_NONCE")
    other_reason = fresh(served, "kim", RESUME_SUSPENSION, suspension_id=suspension, reason="another")
    call = kim.Resume(resumption(served, "kim", suspension, fresh_id_token=other_reason))
    assert await refused(call) == (UNAUTHENTICATED, "ID_TOKEN_NONCE")
    own = resumption(served, "kim", suspension, fresh_id_token=token(served, "kim", nonce, **STRONG))
    lifted = (await kim.Resume(own)).suspension
    assert lifted.state == lifted.STATE_LIFTED


async def test_a_fresh_login_is_for_one_act(served: Served) -> None:
    """The same reason given for the same suspension under another request id is another act."""
    sam = person(served, "sam")
    stop = admin.SuspendRequest(request_id="s", kind="KIND_EVERYTHING", reason="fire")
    suspension = (await sam.Suspend(stop)).suspension.id
    nonce = nonce_of(RESUME_SUSPENSION, {"suspension_id": suspension, "reason": "it is well"})
    proof = token(served, "sam", nonce, **STRONG)
    await sam.Resume(resumption(served, "sam", suspension, fresh_id_token=proof))
    again = resumption(served, "sam", suspension, fresh_id_token=proof, request_id="r2")
    assert (await refused(sam.Resume(again)))[1] == "SECOND_PERSON_REQUIRED"
