"""The development identity provider: real tokens, both flows over HTTP, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from broker.dev.identity_provider import CLIENT_ID, DISCLAIMER, ON_BEHALF_OF, IdentityProvider
from broker.dev.identity_provider_http import CODE_LIFE, DEVICE_GRANT, DEVICE_LIFE, IdentityProviderServer
from broker.dev.loopback import free_port
from broker.errors import InvalidInput, Unauthenticated
from broker.identity.agent import Person
from broker.identity.id_token import IdToken, Issuer, verify
from broker.identity.oidc_keys import KeySet
from broker.issuers.discovery import jwks_uri_of
from tests.clock import ManualClock

ANNA = Person("https://id.example.org", "anna", "Anna <b>", groups=frozenset({"oncall"}))
VERIFIER = "v" * 64
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT = "http://127.0.0.1:4711/callback"


class World:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.clock = ManualClock()
        self.provider = IdentityProvider(f"http://127.0.0.1:{free_port()}", [ANNA], self.clock)
        self.server = IdentityProviderServer(self.provider, self.clock)
        self.session = session

    def verified(self, token: str, audience: str = CLIENT_ID, nonce: str | None = None) -> IdToken:
        issuer = Issuer(self.provider.url, groups_claim="groups")
        keys = KeySet.from_jwks(self.provider.jwks_document())
        return verify(token, issuer, keys, self.clock.now(), audience=audience, nonce=nonce, max_age=None)

    async def get(self, path: str, **query: str) -> tuple[int, str, str]:
        """Status, where it redirects to, text."""
        async with self.session.get(f"{self.provider.url}{path}", params=query, allow_redirects=False) as answer:
            assert answer.headers["cache-control"] == "no-store"
            return answer.status, answer.headers.get("location", ""), await answer.text()

    async def post(self, path: str, **form: str) -> tuple[int, dict[str, Any]]:
        async with self.session.post(f"{self.provider.url}{path}", data=form) as answer:
            return answer.status, await answer.json()

    async def code(self, **changes: str) -> str:
        query = {**AUTHORIZE, **changes}
        status, to, _ = await self.get("/authorize", **{name: value for name, value in query.items() if value})
        assert status == 302 and to.startswith(REDIRECT)
        answer = {name: values[0] for name, values in parse_qs(urlsplit(to).query).items()}
        assert answer["state"] == "s" and answer["iss"] == self.provider.url
        return answer.get("code", "") or answer["error"]

    async def token(self, issued: str, **changes: str) -> tuple[int, dict[str, Any]]:
        form = {"grant_type": "authorization_code", "code": issued, "client_id": CLIENT_ID, "redirect_uri": REDIRECT}
        return await self.post("/token", **{**form, "code_verifier": VERIFIER, **changes})


AUTHORIZE = {
    "response_type": "code",
    "client_id": CLIENT_ID,
    "redirect_uri": REDIRECT,
    "scope": "openid groups",
    "state": "s",
    "nonce": "n",
    "max_age": "0",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
    "login_hint": "anna",
}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as session:
        made = World(session)
        await made.server.start()
        yield made
        await made.server.stop()


async def test_its_documents_say_where_everything_is_and_what_it_is_not(world: World) -> None:
    _, _, text = await world.get("/.well-known/openid-configuration")
    assert jwks_uri_of(text.encode(), world.provider.url) == f"{world.provider.url}/jwks"
    _, _, keys = await world.get("/jwks")
    assert set(KeySet.from_jwks(keys.encode()).keys)
    assert "For development only" in (await world.get("/"))[2] and DISCLAIMER


async def test_a_code_with_pkce_is_a_token_of_that_person_for_that_nonce(world: World) -> None:
    status, told = await world.token(await world.code())
    assert status == 200
    token = world.verified(told["id_token"], nonce="n")
    assert (token.subject, token.groups, token.auth_time) == ("anna", {"oncall"}, world.clock.now())


async def test_a_code_is_good_once(world: World) -> None:
    code = await world.code()
    assert (await world.token(code))[0] == 200
    status, told = await world.token(code)
    assert (status, told["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "x" * 64}, "invalid_grant"),
        ({"code_verifier": ""}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:4712/callback"}, "invalid_grant"),
        ({"client_id": ON_BEHALF_OF}, "invalid_grant"),
        ({"client_id": "wiki"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"code": "guessed"}, "invalid_grant"),
    ],
)
async def test_what_gets_no_token(world: World, changes: dict[str, str], error: str) -> None:
    status, told = await world.token(await world.code(), **changes)
    assert (status, told["error"]) == (400, error) and "id_token" not in told


async def test_a_code_ends(world: World) -> None:
    code = await world.code()
    world.clock.advance(CODE_LIFE)
    assert (await world.token(code))[1]["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"login_hint": "nobody"}, "access_denied"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "groups"}, "unsupported_response_type"),
    ],
)
async def test_an_error_goes_back_to_the_client(world: World, changes: dict[str, str], error: str) -> None:
    assert await world.code(**changes) == error


@pytest.mark.parametrize(
    "redirect",
    ["https://attacker.example/", "http://127.0.0.1.attacker.example/", "javascript:alert(1)", "", "http://["],
)
async def test_nothing_is_sent_elsewhere(world: World, redirect: str) -> None:
    status, to, _ = await world.get("/authorize", **{**AUTHORIZE, "redirect_uri": redirect})
    assert (status, to) == (400, "")


async def test_who_names_nobody_chooses(world: World) -> None:
    query = {name: value for name, value in AUTHORIZE.items() if name != "login_hint"}
    status, _, page = await world.get("/authorize", **query)
    assert status == 200 and "Anna &lt;b&gt;" in page and "login_hint=anna" in page and "For development only" in page


async def test_a_device_waits_until_somebody_has_come(world: World) -> None:
    _, codes = await world.post("/device_authorization", client_id=CLIENT_ID, scope="openid", nonce="n")
    poll = {"grant_type": DEVICE_GRANT, "device_code": codes["device_code"], "client_id": CLIENT_ID}
    assert (await world.post("/token", **poll))[1]["error"] == "authorization_pending"
    assert "user_code" in (await world.get("/device"))[2]
    assert (await world.get("/device", user_code="NO-SUCH"))[0] == 404
    assert "login_hint=anna" in (await world.get("/device", user_code=codes["user_code"]))[2]
    assert (await world.get("/device", user_code=codes["user_code"].lower(), login_hint="anna"))[0] == 200
    status, told = await world.post("/token", **poll)
    assert status == 200 and world.verified(told["id_token"], nonce="n").subject == "anna"
    assert (await world.post("/token", **poll))[1]["error"] == "invalid_grant"


async def test_a_device_that_names_its_person_waits_for_nobody_and_no_device_for_ever(world: World) -> None:
    for hint, expected in (("anna", ""), ("", "expired_token")):
        _, codes = await world.post("/device_authorization", client_id=CLIENT_ID, login_hint=hint)
        if expected:
            world.clock.advance(DEVICE_LIFE)
        poll = {"grant_type": DEVICE_GRANT, "device_code": codes["device_code"], "client_id": CLIENT_ID}
        assert (await world.post("/token", **poll))[1].get("error", "") == expected


def test_its_keys_rotate_and_are_withdrawn() -> None:
    clock = ManualClock()
    provider = IdentityProvider("http://127.0.0.1:1", [ANNA], clock)
    token = provider.id_token("anna")
    issuer = Issuer(provider.url)

    def taken() -> bool:
        keys = KeySet.from_jwks(provider.jwks_document())
        try:
            return bool(verify(token, issuer, keys, clock.now(), audience=CLIENT_ID, nonce=None, max_age=None))
        except Unauthenticated as refused:
            assert refused.reason == "ID_TOKEN_KEY_UNKNOWN"
            return False

    provider.rotate()
    assert taken()
    provider.rotate(withdraw=True)
    assert not taken()


def test_it_makes_no_token_of_somebody_it_does_not_know() -> None:
    provider = IdentityProvider("http://127.0.0.1:1", [ANNA], ManualClock())
    with pytest.raises(InvalidInput):
        provider.id_token("berta")
    provider.know([])
    with pytest.raises(InvalidInput):
        provider.id_token("anna")
