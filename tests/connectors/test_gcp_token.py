"""Tokens of a shared service account: what is asked, what comes back, what is refused before and after."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from broker.connectors.gcp_mint import lifetime
from broker.connectors.own_identity import NoOwnToken
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import GcpToken
from broker.ports.connectors import Issued, Severity, Use
from broker.secret import Secret
from tests.clock import ManualClock
from tests.connectors.gcp_double.rules import Mishap, Refusal
from tests.connectors.harness_gcp import (
    AUDIENCE,
    BROKER,
    BUCKET,
    READER,
    World,
    boundary_of,
    gcp_world,
    token_scope,
)
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, new_attempt
from tests.forge_jwt import rsa_key

TTL = timedelta(minutes=5)
GENERATE = ":generateAccessToken"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC).replace(microsecond=0))


@pytest.fixture
def world(clock: ManualClock) -> Iterator[World]:
    with gcp_world(clock) as made:
        yield made


async def issue(world: World, ttl: timedelta = TTL, connector: Any = None, **scope: Any) -> Issued:
    made = connector or world.tokens()
    try:
        wanted, expires_at = token_scope(**scope), world.clock.now() + ttl
        handle = made.prepare(wanted, new_attempt(), HOLDER, expires_at)
        issued: Issued = await made.issue(handle, wanted, expires_at, Ledger().checkpoint)
        return issued
    finally:
        await made.close()


async def refused(world: World, **changes: Any) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await issue(world, **changes)
    assert_tells_no_secret(caught.value, *world.cloud.tokens)
    return caught.value


def token_of(issued: Issued) -> GcpToken:
    assert isinstance(issued.credential, GcpToken)
    return issued.credential


async def test_a_token_does_what_its_boundary_leaves_until_its_time_is_over(world: World, clock: ManualClock) -> None:
    issued = await issue(world)
    token = token_of(issued)
    assert token.service_account == READER
    assert issued.expires_at == token.expires_at == clock.now() + TTL
    assert issued.observed["access_boundary"] == token.access_boundary != ""
    text = token.access_token.reveal()
    assert world.reads(text, "2031/05/a.csv")
    assert not world.reads(text, "2031/06/b.csv")  # the account may, the boundary does not leave it
    clock.advance(TTL - timedelta(milliseconds=1))
    assert world.reads(text, "2031/05/a.csv")
    clock.advance(timedelta(milliseconds=1))
    assert not world.reads(text, "2031/05/a.csv")


async def test_without_a_boundary_it_is_the_accounts_own(world: World) -> None:
    scope = token_scope()
    token = token_of(await issue(world, grant={**scope.grant, "boundary": None}))
    assert token.access_boundary == ""
    assert world.reads(token.access_token.reveal(), "2031/06/b.csv")


async def test_the_broker_comes_as_itself_for_the_provider_and_only_once(world: World) -> None:
    connector = world.tokens()
    for _ in range(3):
        wanted, expires_at = token_scope(), world.clock.now() + TTL
        handle = connector.prepare(wanted, new_attempt(), HOLDER, expires_at)
        await connector.issue(handle, wanted, expires_at, Ledger().checkpoint)
    await connector.close()
    assert world.own.audiences == [f"https:{AUDIENCE}"]  # type: ignore[attr-defined]
    # One federation; then one generateAccessToken and one downscoping for each.
    assert world.cloud.calls.count("POST /v1/token") == 1 + 3


@pytest.mark.parametrize("seconds", [-1, 0, 3601, 7200])
def test_a_lifetime_that_the_library_would_turn_into_an_hour_never_gets_there(seconds: int) -> None:
    now = datetime(2031, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="a token lives for"):
        lifetime(now, now + timedelta(seconds=seconds))


def test_a_lifetime_is_rounded_down() -> None:
    now = datetime(2031, 1, 1, tzinfo=UTC)
    assert lifetime(now, now + timedelta(seconds=299.999)) == 299
    assert lifetime(now, now + timedelta(hours=1)) == 3600


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(milliseconds=999), timedelta(hours=1, seconds=1)])
async def test_a_time_that_google_does_not_give_is_not_asked_for(world: World, ttl: timedelta) -> None:
    failure = await refused(world, ttl=ttl)
    assert failure.outcome_known
    assert not any(GENERATE in each for each in world.cloud.calls)


async def test_the_time_that_fetching_the_own_token_took_is_not_added(world: World, clock: ManualClock) -> None:
    world.cloud.mishaps.append(Mishap("/v1/token", before=lambda: clock.advance(timedelta(minutes=4))))
    ends = clock.now() + TTL
    assert (await issue(world)).expires_at == ends


async def test_what_is_given_up_while_the_process_stood_still_is_not_made(world: World, clock: ManualClock) -> None:
    world.cloud.mishaps.append(Mishap("/v1/token", before=lambda: clock.advance(TTL)))
    failure = await refused(world)
    assert failure.outcome_known
    assert not any(GENERATE in each for each in world.cloud.calls)


@pytest.mark.parametrize(
    ("refusal", "reason", "known", "retry_after"),
    [
        (Refusal(403, "PERMISSION_DENIED"), Reason.UPSTREAM_REFUSED, True, None),
        (Refusal(404, "NOT_FOUND"), Reason.UPSTREAM_REFUSED, True, None),
        (Refusal(400, "FAILED_PRECONDITION"), Reason.UPSTREAM_REFUSED, True, None),
        (Refusal(401, "UNAUTHENTICATED"), Reason.UPSTREAM_ROOT_REFUSED, True, None),
        (Refusal(429, "RESOURCE_EXHAUSTED", {"Retry-After": "7"}), Reason.UPSTREAM_UNAVAILABLE, True, 7.0),
        (Refusal(429, "RESOURCE_EXHAUSTED", {"Retry-After": "soon"}), Reason.UPSTREAM_UNAVAILABLE, True, None),
        (Refusal(500, "INTERNAL"), Reason.UPSTREAM_UNAVAILABLE, False, None),
        (Refusal(503, "UNAVAILABLE", {"Retry-After": "99999999"}), Reason.UPSTREAM_UNAVAILABLE, False, 300.0),
        (Refusal(302, "FOUND", {"Location": "https://elsewhere.test/"}), Reason.UPSTREAM_UNAVAILABLE, False, None),
    ],
)
async def test_what_an_answer_proves(
    world: World, refusal: Refusal, reason: Reason, known: bool, retry_after: float | None
) -> None:
    world.cloud.mishaps.append(Mishap(GENERATE, refuse=refusal))
    failure = await refused(world)
    assert (failure.reason, failure.outcome_known, failure.retry_after) == (reason, known, retry_after)
    assert refusal.code in failure.message


async def test_a_bare_refusal_may_be_of_something_in_front_of_google(world: World) -> None:
    world.cloud.mishaps.append(Mishap(GENERATE, refuse=Refusal(404, "")))
    failure = await refused(world)
    assert (failure.reason, failure.outcome_known) == (Reason.UPSTREAM_UNAVAILABLE, False)


async def test_a_reply_that_is_lost_counts_as_made(world: World) -> None:
    world.cloud.mishaps.append(Mishap(GENERATE, lose=True))
    failure = await refused(world)
    assert failure.reason is Reason.UPSTREAM_UNAVAILABLE
    assert not failure.outcome_known


async def test_a_hang_is_given_up(world: World) -> None:
    done = threading.Event()
    world.cloud.mishaps.append(Mishap(GENERATE, before=done.wait))
    try:
        failure = await refused(world, connector=world.tokens(timeout=0.2))
    finally:
        done.set()
    assert not failure.outcome_known


async def test_what_was_made_before_the_narrowing_failed_counts_as_made(world: World) -> None:
    # The first exchange is the broker's own; the second narrows.
    connector = world.tokens()
    await connector.examine()
    world.cloud.mishaps.append(Mishap("/v1/token", refuse=Refusal(400, "invalid_request")))
    failure = await refused(world, connector=connector)
    assert not failure.outcome_known


def _set(name: str, value: object) -> Any:
    return lambda answer: answer.update({name: value})


@pytest.mark.parametrize(
    "change",
    [
        lambda answer: answer.clear(),
        lambda answer: answer.pop("expireTime"),
        lambda answer: answer.pop("accessToken"),
        _set("accessToken", ""),
        _set("accessToken", None),
        _set("accessToken", 7),
        _set("expireTime", "soon"),
        _set("expireTime", None),
        _set("expireTime", "2031-05-01T12:00:00+02:00"),
    ],
)
async def test_a_reply_that_is_not_whole_is_not_believed(world: World, change: Any) -> None:
    world.cloud.mishaps.append(Mishap(GENERATE, change=change))
    failure = await refused(world, grant={**token_scope().grant, "boundary": None})
    assert not failure.outcome_known


@pytest.mark.parametrize("moved", [timedelta(seconds=11), timedelta(hours=1), -TTL, -timedelta(hours=2)])
async def test_a_token_that_is_longer_or_has_ended_already_is_not_delivered(world: World, moved: timedelta) -> None:
    ends = world.clock.now() + TTL + moved
    world.cloud.mishaps.append(Mishap(GENERATE, change=_set("expireTime", ends.strftime("%Y-%m-%dT%H:%M:%SZ"))))
    failure = await refused(world)
    assert failure.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert not failure.outcome_known


async def test_a_token_that_is_shorter_is_told_as_it_is(world: World) -> None:
    ends = world.clock.now() + timedelta(minutes=2)
    world.cloud.mishaps.append(Mishap(GENERATE, change=_set("expireTime", ends.strftime("%Y-%m-%dT%H:%M:%SZ"))))
    issued = await issue(world)
    assert issued.expires_at == token_of(issued).expires_at == ends


async def test_a_narrowing_that_returns_the_wide_token_is_not_delivered(world: World) -> None:
    wide: list[str] = []
    connector = world.tokens()
    await connector.examine()
    world.cloud.mishaps.append(Mishap(GENERATE, change=lambda answer: wide.append(answer["accessToken"])))
    world.cloud.mishaps.append(Mishap("/v1/token", change=lambda answer: answer.update(access_token=wide[0])))
    failure = await refused(world, connector=connector)
    assert failure.reason is Reason.UPSTREAM_GRANT_MISMATCH


async def test_a_narrowed_token_that_is_said_to_live_longer_is_not_delivered(world: World) -> None:
    connector = world.tokens()
    await connector.examine()
    world.cloud.mishaps.append(Mishap("/v1/token", change=_set("expires_in", 3600)))
    assert (await refused(world, connector=connector)).reason is Reason.UPSTREAM_GRANT_MISMATCH


@pytest.mark.parametrize(
    "grant",
    [
        {"service_account": "nobody-knows"},
        {"service_account": "orders-reader@acme-data.iam.gserviceaccount.com"},
        {"service_account": None},
        {"scopes": []},
        {"scopes": None},
        {"scopes": "https://www.googleapis.com/auth/cloud-platform"},
        {"scopes": ["cloud-platform"]},
        {"boundary": boundary_of({"parameter": "prefix"}, {"text": "/"}) * 11},
    ],
)
async def test_a_grant_that_is_none_is_refused_before_anything_is_asked(world: World, grant: Any) -> None:
    connector, scope = world.tokens(), token_scope()
    with pytest.raises(InvalidInput):
        connector.prepare(replace(scope, grant={**scope.grant, **grant}), "jb-1", HOLDER, world.clock.now() + TTL)
    await connector.close()
    assert not world.cloud.calls


async def test_another_projects_account_is_not_among_the_connectors(world: World) -> None:
    connector = world.tokens()
    with pytest.raises(InvalidInput) as caught:
        connector.prepare(token_scope(account="other-project"), "jb-1", HOLDER, world.clock.now() + TTL)
    assert "orders-reader@other-project" in caught.value.message
    await connector.close()


# --------------------------------------------------------------------------- the own credential


async def test_a_provider_that_refuses_the_broker_is_its_own_credential_refused(world: World) -> None:
    world.cloud.trusted = lambda token, audience: (_ for _ in ()).throw(ValueError())
    failure = await refused(world)
    assert failure.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert failure.outcome_known


async def test_a_broker_without_a_jwt_svid_is_told_so(world: World) -> None:
    world.own = NoOwnToken()
    failure = await refused(world)
    assert failure.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert not world.cloud.calls


async def test_a_token_of_the_broker_that_is_refused_is_fetched_anew(world: World) -> None:
    connector = world.tokens()
    await connector.examine()
    for text, token in list(world.cloud.tokens.items()):
        if token.principal == BROKER:
            del world.cloud.tokens[text]
    wanted, expires_at = token_scope(), world.clock.now() + TTL
    handle = connector.prepare(wanted, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed) as caught:
        await connector.issue(handle, wanted, expires_at, Ledger().checkpoint)
    assert caught.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert await connector.issue(handle, wanted, expires_at, Ledger().checkpoint)
    await connector.close()


def key_file(**changes: object) -> Secret:
    pem = rsa_key("gcp").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    info = {
        "type": "service_account",
        "client_email": "broker@acme-data.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "token_uri": "https://attacker.test/token",
        **changes,
    }
    return Secret(json.dumps(info))


async def test_a_key_is_sent_nowhere_but_to_google_and_told_as_the_worse_way(world: World) -> None:
    connector = world.tokens(credentials=key_file)
    found = await connector.examine()
    await connector.close()
    # The double plays no part of keys: what is proven is where the assertion goes.
    assert world.cloud.calls == ["POST /token"]
    assert [each.severity for each in found] == [Severity.WARNING, Severity.ERROR]
    assert "no end" in found[0].what


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", '{"type": "authorized_user"}'])
async def test_a_key_that_is_none_is_told_without_its_text(world: World, text: str) -> None:
    connector = world.tokens(credentials=lambda: Secret(text or " "))
    failure = await refused(world, connector=connector)
    assert failure.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert failure.outcome_known
    assert "authorized_user" not in str(failure)


# --------------------------------------------------------------------------- looking


async def test_what_is_set_up_by_the_recipe_has_no_doubt(world: World) -> None:
    connector = world.tokens()
    assert not await connector.examine()
    await connector.close()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda cloud: cloud.accounts.pop(READER), "There is no service account"),
        (lambda cloud: cloud.accounts[READER].rights.clear(), "has no iam.serviceAccounts.getAccessToken"),
        (
            lambda cloud: cloud.accounts[READER].rights[BROKER].add("iam.serviceAccountKeys.create"),
            "more with orders-reader@acme-data.iam.gserviceaccount.com than it needs: iam.serviceAccountKeys.create",
        ),
        (lambda cloud: setattr(cloud.accounts[READER], "user_keys", 2), "2 keys"),
    ],
)
async def test_every_doubt_by_making_it_come_true(world: World, spoil: Any, says: str) -> None:
    spoil(world.cloud)
    connector = world.tokens()
    found = await connector.examine()
    await connector.close()
    assert any(each.severity is Severity.ERROR and says in each.what for each in found), found


async def test_use_asks_for_what_the_boundary_leaves(world: World) -> None:
    connector = world.tokens(canary_bucket=None)
    rule = boundary_of({"parameter": "prefix"}, {"text": "/"})[0]
    assert isinstance(rule, dict)
    for narrowed in (rule, {**rule, "below": None, "object": [{"text": "not-there.csv"}]}):
        scope = token_scope(grant={**token_scope().grant, "boundary": [narrowed]})
        token = token_of(await issue(world, grant=scope.grant))
        assert await connector.use(token, scope) is Use.WORKS
        world.cloud.accounts[READER].disabled = True
        assert await connector.use(token, scope) is Use.REFUSED
        world.cloud.accounts[READER].disabled = False
    with pytest.raises(UpstreamFailed, match="no boundary"):
        await connector.use(token, token_scope(grant={**token_scope().grant, "boundary": None}))
    await connector.close()


async def test_use_asks_storage_and_only_a_refusal_is_dead(world: World, clock: ManualClock) -> None:
    connector, scope = world.tokens(), token_scope()
    token = token_of(await issue(world, grant={**scope.grant, "boundary": None}))
    scope = token_scope(grant={**scope.grant, "boundary": None})
    assert await connector.use(token, scope) is Use.WORKS
    world.cloud.mishaps.append(Mishap(f"/b/{BUCKET}/o", refuse=Refusal(503, "UNAVAILABLE")))
    with pytest.raises(UpstreamFailed) as caught:
        await connector.use(token, scope)
    assert caught.value.reason is Reason.CREDENTIAL_USE_UNKNOWN
    clock.advance(TTL)
    assert await connector.use(token, scope) is Use.REFUSED
    await connector.close()
