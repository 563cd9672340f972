"""Code and PKCE on loopback: what is asked for, what comes back, and what is not believed."""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.client.login.person import fresh_login, log_in
from broker.client.login.redirect import Redirect
from broker.errors import BrokerError, Denied, InvalidInput, NotReady, Reason, Unauthenticated
from tests.client.login.fake_provider import CLIENT, FakeProvider, World, fetch, impatient
from tests.patience import PATIENCE


def test_a_login(provider: FakeProvider, world: World) -> None:
    done = log_in(provider.settings, world.surroundings)
    assert (done.id_token.subject, done.id_token.audience) == ("anna", CLIENT)
    assert done.tokens.refresh_token is not None
    (asked,) = world.sent_to
    # A parameter of the endpoint's own stays.
    assert asked["tenant"] == "t"
    assert asked["response_type"] == "code"
    assert asked["scope"] == "openid profile email groups offline_access"
    assert asked["prompt"] == "consent"
    assert "nonce" not in asked
    (form,) = provider.asked("/token")
    assert form["code"] == "c0de"
    assert form["redirect_uri"] == asked["redirect_uri"]
    digest = hashlib.sha256(form["code_verifier"].encode()).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    assert asked["code_challenge_method"] == "S256"
    assert form["client_id"] == CLIENT
    assert world.told[-1].startswith(f"{provider.url}/authorize?tenant=t&response_type=code")


def test_each_login_has_values_of_its_own(provider: FakeProvider, world: World) -> None:
    for _ in range(2):
        log_in(provider.settings, world.surroundings)
    for name in ("state", "code_challenge"):
        one, other = (each[name] for each in world.sent_to)
        assert one != other
        assert len(one) == 43


def test_scopes_are_those_the_provider_has_unless_somebody_says(provider: FakeProvider, world: World) -> None:
    provider.documents = {"scopes_supported": None}
    log_in(provider.settings, world.surroundings)
    assert world.sent_to[-1]["scope"] == "openid profile email"
    assert "prompt" not in world.sent_to[-1]
    log_in(replace(provider.settings, scopes=("roles", "offline_access")), world.surroundings)
    assert world.sent_to[-1]["scope"] == "openid roles offline_access"


def test_the_page_keeps_nothing_and_the_door_is_closed(provider: FakeProvider, world: World) -> None:
    log_in(provider.settings, world.surroundings)
    status, text = world.pages[0]
    assert (status, "Go on in the terminal" in text, "c0de" in text) == (200, True, False)
    with pytest.raises(OSError, match="refused"):
        fetch(world.sent_to[0]["redirect_uri"])


def without(name: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda good: {key: good[key] for key in ("code", "state", "iss") if key != name}


def with_(**changes: str) -> Callable[[dict[str, str]], dict[str, str]]:
    return lambda good: {**{key: good[key] for key in ("code", "state", "iss")}, **changes}


@pytest.mark.parametrize(
    ("brings", "told"),
    [
        (without("state"), "state"),
        (with_(state="guessed"), "state"),
        (with_(state="gu\u00e9ssed"), "state"),
        (without("iss"), "from nobody"),
        (with_(iss="https://evil.example.org"), "from https://evil.example.org"),
        (without("code"), "neither a code nor an error"),
        (with_(code=""), "neither a code nor an error"),
        # Somebody else's error is nobody's word either.
        (with_(state="guessed", error="access_denied"), "state"),
    ],
)
def test_an_answer_that_is_not_believed(
    provider: FakeProvider, world: World, brings: Callable[[dict[str, str]], dict[str, str]], told: str
) -> None:
    world.brings = brings
    with pytest.raises(Unauthenticated) as caught:
        log_in(provider.settings, world.surroundings)
    assert (caught.value.reason, told in caught.value.message) == (Reason.LOGIN_FAILED, True)
    assert provider.asked("/token") == []


@pytest.mark.parametrize(
    ("error", "family", "reason", "told"),
    [
        ("access_denied", Denied, Reason.LOGIN_REFUSED, "access_denied: not \x1b[1mtoday".replace("\x1b", "?")),
        ("login_required", Unauthenticated, Reason.LOGIN_FAILED, "login_required"),
        ("invalid_scope", Unauthenticated, Reason.LOGIN_FAILED, "invalid_scope"),
    ],
)
def test_what_the_provider_says_no_with(
    provider: FakeProvider, world: World, error: str, family: type[BrokerError], reason: Reason, told: str
) -> None:
    world.brings = lambda good: {
        **with_(error=error, error_description="not \x1b[1mtoday")(good),
        "code": "",
    }
    with pytest.raises(family) as caught:
        log_in(provider.settings, world.surroundings)
    assert (caught.value.reason, told in caught.value.message) == (reason, True)


@pytest.mark.parametrize(
    ("status", "body", "reason", "told"),
    [
        (400, {"error": "invalid_grant"}, Reason.LOGIN_FAILED, "invalid_grant"),
        (401, {"error": "invalid_client"}, Reason.LOGIN_FAILED, "invalid_client"),
        (400, {}, Reason.IDENTITY_PROVIDER_INVALID, "named no error"),
        (500, b"oops", Reason.IDENTITY_PROVIDER_INVALID, "it answered 500"),
        (200, {"access_token": "a"}, Reason.IDENTITY_PROVIDER_INVALID, "no id_token"),
        (200, {"id_token": 1}, Reason.IDENTITY_PROVIDER_INVALID, "no text"),
        (200, {"id_token": "x.y.z"}, Reason.ID_TOKEN_MALFORMED, "ID token"),
        (302, b"http://127.0.0.1:1/", Reason.IDENTITY_PROVIDER_INVALID, "it answered 302"),
    ],
)
def test_a_token_endpoint_that_gives_none(
    provider: FakeProvider, world: World, status: int, body: Any, reason: Reason, told: str
) -> None:
    provider.answers["/token"] = lambda form: (status, body)
    with pytest.raises((Unauthenticated, NotReady)) as caught:
        log_in(provider.settings, world.surroundings)
    assert (caught.value.reason, told in caught.value.message) == (reason, True), caught.value


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "another-application"}, Reason.ID_TOKEN_AUDIENCE),
        ({"aud": [CLIENT, "another-application"]}, Reason.ID_TOKEN_AUDIENCE),
        ({"iss": "https://evil.example.org"}, Reason.ID_TOKEN_ISSUER_UNKNOWN),
        ({"exp": 1}, Reason.ID_TOKEN_CLAIM_INVALID),
        ({"kid": "gone"}, Reason.ID_TOKEN_KEY_UNKNOWN),
    ],
)
def test_an_id_token_that_the_broker_would_not_take(
    provider: FakeProvider, world: World, claims: dict[str, Any], reason: Reason
) -> None:
    header = {"kid": claims.pop("kid")} if "kid" in claims else {}
    provider.answers["/token"] = lambda form: (
        200,
        {"id_token": provider.forged.token("anna", CLIENT, header=header, **claims)},
    )
    with pytest.raises(Unauthenticated) as caught:
        log_in(provider.settings, world.surroundings)
    assert caught.value.reason == reason


def test_nobody_comes_back(provider: FakeProvider, world: World) -> None:
    world.brings = lambda good: None
    with pytest.raises(Unauthenticated) as caught:
        log_in(impatient(provider.settings), world.surroundings)
    assert caught.value.reason == Reason.LOGIN_TIMED_OUT
    assert "--device" in caught.value.hint
    assert provider.asked("/token") == []


def test_without_a_browser_the_address_is_told(provider: FakeProvider, world: World) -> None:
    world.has_browser = False
    with pytest.raises(Unauthenticated, match="no answer came"):
        log_in(impatient(provider.settings), world.surroundings)
    assert world.told[-2] == "Open this in a browser on this machine:"


def test_what_is_not_the_redirect_changes_nothing() -> None:
    with Redirect() as redirect:
        origin = redirect.uri.removesuffix("/callback")
        host = origin.removeprefix("http://")
        assert fetch(f"{origin}/favicon.ico")[0] == 404
        assert fetch(f"{origin}/callback/?code=x")[0] == 404
        # The name of a page elsewhere, bound to this address.
        assert fetch(f"{redirect.uri}?code=x", Host="evil.example.org")[0] == 404
        assert fetch(f"{redirect.uri}?code=x", Host=host.replace("127.0.0.1", "localhost"))[0] == 404
        assert fetch(f"{redirect.uri}?code={'x' * 9000}")[0] == 404
        with pytest.raises(Unauthenticated, match="no answer came"):
            redirect.wait(timedelta(milliseconds=1))
        assert fetch(f"{redirect.uri}?code=good&state=s")[0] == 200
        assert fetch(f"{redirect.uri}?code=other&state=s")[0] == 410
        assert redirect.wait(timedelta(seconds=PATIENCE)) == {"code": "good", "state": "s"}


def test_a_parameter_that_stands_twice_is_no_answer() -> None:
    with Redirect() as redirect:
        fetch(f"{redirect.uri}?code=good&code=bad&state=s")
        assert redirect.wait(timedelta(seconds=PATIENCE)) == {}


def test_a_connection_that_says_nothing_stops_nobody() -> None:
    """Browsers open some before they need them."""
    import socket

    with Redirect() as redirect:
        port = int(redirect.uri.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            assert fetch(f"{redirect.uri}?code=good")[0] == 200
        assert redirect.wait(timedelta(seconds=PATIENCE)) == {"code": "good"}


def test_a_port_that_is_taken_is_told() -> None:
    with Redirect() as redirect, pytest.raises(InvalidInput, match="BROKER_OIDC_REDIRECT_PORT") as caught:
        Redirect(int(redirect.uri.split(":")[2].partition("/")[0]))
    assert caught.value.reason == Reason.CONFIG_INVALID


# ---------------------------------------------------------------- fresh logins

FIELDS = {"access_request_id": "r1", "digest": "ab" * 32}


def test_a_fresh_login_is_for_one_thing_and_says_so_first(provider: FakeProvider, world: World) -> None:
    settings = replace(provider.settings, acr_values="strong", login_hint="anna")
    fresh = fresh_login(settings, world.surroundings, "ApproveAccessRequest", FIELDS)
    (asked,) = world.sent_to
    assert (asked["prompt"], asked["max_age"], asked["acr_values"]) == ("login", "0", "strong")
    assert asked["login_hint"] == "anna"
    assert "offline_access" not in asked["scope"]
    assert fresh.id_token.nonce == asked["nonce"]
    shown = "\n".join(world.told)
    assert shown.index("ApproveAccessRequest") < shown.index("ab" * 32) < shown.index("/authorize?")


def test_other_fields_have_another_nonce(provider: FakeProvider, world: World) -> None:
    for fields in (FIELDS, {**FIELDS, "digest": "cd" * 32}):
        provider.claims.clear()
        fresh_login(provider.settings, world.surroundings, "ApproveAccessRequest", fields)
    one, other = (each["nonce"] for each in world.sent_to)
    assert one != other


def test_texts_of_others_do_not_paint_the_terminal(provider: FakeProvider, world: World) -> None:
    fresh_login(provider.settings, world.surroundings, "Resume", {"reason": "fine\x1b[2J\nnothing else:\u202e"})
    assert "\x1b" not in "".join(world.told)
    assert [line for line in world.told if line.startswith("nothing")] == []


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "another"}, Reason.ID_TOKEN_NONCE),
        ({"nonce": None}, Reason.ID_TOKEN_NONCE),
        # The provider took no notice of prompt and max_age: the person logged in this morning.
        ({"auth_time": 1_900_000_000}, Reason.ID_TOKEN_TOO_OLD),
        ({"auth_time": None}, Reason.ID_TOKEN_TOO_OLD),
    ],
)
def test_a_fresh_login_that_is_none(
    provider: FakeProvider, world: World, claims: dict[str, Any], reason: Reason
) -> None:
    provider.claims.update(claims)
    with pytest.raises(Unauthenticated) as caught:
        fresh_login(provider.settings, world.surroundings, "ApproveAccessRequest", FIELDS)
    assert caught.value.reason == reason


def test_threads_end(provider: FakeProvider, world: World) -> None:
    before = serving()
    log_in(provider.settings, world.surroundings)
    with pytest.raises(Unauthenticated):
        log_in(
            impatient(replace(provider.settings, redirect_port=0)),
            replace(world, brings=lambda good: None).surroundings,
        )
    assert serving() == before


def serving() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if "serve_forever" in each.name}
