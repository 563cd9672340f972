"""A person logs in at a real OpenID provider, by browser and by device, and what is kept is renewed and forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.client.login.cached import CachedLogin, Kept, LoginCache
from broker.client.login.http import ProviderHttp
from broker.client.login.person import fresh_login, log_in
from broker.client.login.provider import discover
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.verifying import verified
from broker.clock import SystemClock
from broker.errors import Denied, Reason, Unauthenticated
from broker.identity.fresh_proof import FRESH
from integration.oidc.browser import Person
from integration.oidc.conftest import ACCOUNTS, Command, person
from integration.oidc.provider import CLIENT, OTHER_CLIENT, STRONG, WEAK, Provider


def settings(provider: Provider, **changes: object) -> LoginSettings:
    return replace(LoginSettings(provider.issuer, CLIENT, timeout=timedelta(minutes=1)), **changes)  # type: ignore[arg-type]


def world(who: Person, *, ahead: timedelta = timedelta(), told: Callable[[str], None] = print) -> Surroundings:
    """``who`` at a browser, with a clock that may be ahead; nothing is waited for."""
    import threading

    def opens(url: str) -> bool:
        threading.Thread(target=who.visit, args=(url,), daemon=True).start()
        return True

    return Surroundings(lambda: SystemClock().now() + ahead, lambda _: None, told, opens)


def test_in_the_browser(command: Command, provider: Provider, tmp_path: Path) -> None:
    assert "LOGIN_REQUIRED" in command(None, "doctor", "login").out
    done = command(person("anna"), "login")
    assert (done.code, done.out.startswith("logged in as anna until ")) == (0, True), done.err
    assert "renewed when used" in done.out
    (kept,) = (tmp_path / ".local" / "state" / "jit-broker").glob("login-*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    told = command(None, "doctor", "login", "--format", "json")
    steps = {each["step"]: each for each in json.loads(told.out)}
    assert [name for name, each in steps.items() if not each["ok"]] == ["broker"]
    assert steps["token"]["detail"].startswith("anna, until ")
    assert provider.key_id in steps["keys"]["detail"]
    assert json.loads(kept.read_text())["id_token"] not in told.out
    done = command(None, "logout")
    assert (done.code, done.out, done.err) == (0, "logged out anna\n", "")
    assert not kept.exists()
    assert command(None, "logout").out == "nobody is logged in here\n"


def test_somebody_says_no(command: Command) -> None:
    done = command(person("anna", cancels=True), "login")
    assert (done.code, "LOGIN_REFUSED" in done.err, "access_denied" in done.err) == (3, True, True), done.err
    assert command(None, "logout").out == "nobody is logged in here\n"


def test_nobody_finishes(command: Command) -> None:
    done = command(None, "login", "--no-browser", "--login-timeout", "1s")
    assert (done.code, "LOGIN_TIMED_OUT" in done.err) == (3, True)
    assert "Open this in a browser on this machine:\nhttp://127.0.0.1:" in done.err


def test_an_application_that_the_provider_does_not_have(command: Command) -> None:
    done = command(None, "login", "--device", BROKER_OIDC_CLIENT_ID="unheard-of")
    assert (done.code, "invalid_client" in done.err, "BROKER_OIDC_CLIENT_ID" in done.err) == (3, True, True), done.err


def test_by_device(provider: Provider) -> None:
    anna = person("anna")
    lines: list[str] = []

    def tells(line: str) -> None:
        lines.append(line)
        if "enter the code" in line:
            words = line.split()
            anna.enter(words[words.index("open") + 1], words[-1])

    done = log_in(settings(provider, device=True), world(anna, told=tells))
    assert (done.id_token.subject, done.id_token.acr) == ("anna", STRONG)
    assert len(lines) == 2


def test_by_device_somebody_says_no(provider: Provider) -> None:
    anna = person("anna", cancels=True)

    def tells(line: str) -> None:
        if "enter the code" in line:
            words = line.split()
            anna.enter(words[words.index("open") + 1], words[-1])

    with pytest.raises(Denied) as caught:
        log_in(settings(provider, device=True), world(anna, told=tells))
    assert caught.value.reason == Reason.LOGIN_REFUSED


def test_by_device_nobody_comes(provider: Provider) -> None:
    with pytest.raises(Unauthenticated) as caught:
        log_in(
            settings(provider, device=True, timeout=timedelta(seconds=12)), world(person("anna"), told=lambda _: None)
        )
    assert caught.value.reason == Reason.LOGIN_TIMED_OUT


def test_renewed_once_by_each_refresh_token(provider: Provider, tmp_path: Path) -> None:
    """Its refresh tokens rotate: one that is used again was stolen, for all it knows."""
    anna = person("anna")
    first = log_in(settings(provider), world(anna))
    cache = LoginCache(tmp_path / "state", provider.issuer, CLIENT)
    cache.write(Kept.of(first.id_token, first.tokens))
    # ID tokens live 10 minutes there.
    later = CachedLogin(cache, settings(provider), world(anna, ahead=timedelta(minutes=9, seconds=55)))
    token = later.token()
    renewed = cache.read()
    assert renewed is not None
    assert (renewed.subject, renewed.id_token.reveal()) == ("anna", token)
    assert renewed.refresh_token not in (None, first.tokens.refresh_token)
    cache.write(Kept.of(first.id_token, first.tokens))
    with pytest.raises(Unauthenticated, match="does not renew it") as caught:
        later.token()
    assert caught.value.reason == Reason.LOGIN_REQUIRED


def test_a_fresh_login_is_signed_for_one_thing(provider: Provider) -> None:
    """With a browser that is logged in already: ``prompt=login`` makes the person log in once more all the same."""
    anna = person("anna")
    log_in(settings(provider), world(anna))
    before = len(anna.seen)
    fields = {"access_request_id": "r1", "digest": "ab" * 32}
    fresh = fresh_login(settings(provider, acr_values=STRONG), world(anna), "ApproveAccessRequest", fields)
    assert len(anna.seen) > before + 1
    assert (fresh.id_token.subject, fresh.id_token.acr) == ("anna", STRONG)
    assert "mfa" in fresh.id_token.amr
    assert fresh.id_token.auth_time is not None
    assert SystemClock().now() - fresh.id_token.auth_time < FRESH
    weak = fresh_login(settings(provider), world(person("anna", strong=False)), "ApproveAccessRequest", fields)
    assert (weak.id_token.acr, weak.id_token.nonce) == (WEAK, fresh.id_token.nonce)


def test_a_device_flow_carries_no_nonce(provider: Provider) -> None:
    anna = person("anna")

    def tells(line: str) -> None:
        if "enter the code" in line:
            words = line.split()
            anna.enter(words[words.index("open") + 1], words[-1])

    with pytest.raises(Unauthenticated) as caught:
        fresh_login(settings(provider, device=True), world(anna, told=tells), "ResumeSuspension", {"reason": "r"})
    assert (caught.value.reason, "without --device" in caught.value.hint) == (Reason.ID_TOKEN_NONCE, True)


def test_keys_that_change(provider: Provider, command: Command) -> None:
    http, now = ProviderHttp(), SystemClock().now()
    old = log_in(settings(provider), world(person("anna"))).tokens.id_token
    first = provider.key_id
    provider.rotate()
    assert provider.key_id != first
    new = log_in(settings(provider), world(person("ben"))).tokens.id_token
    for token, subject in ((old, "anna"), (new, "ben")):
        assert verified(http, discover(provider.issuer, http), CLIENT, token, now, nonce=None).subject == subject
    provider.forget()
    assert verified(http, discover(provider.issuer, http), CLIENT, new, now, nonce=None).subject == "ben"
    with pytest.raises(Unauthenticated) as caught:
        verified(http, discover(provider.issuer, http), CLIENT, old, now, nonce=None)
    assert caught.value.reason == Reason.ID_TOKEN_KEY_UNKNOWN


def test_a_token_for_another_application(provider: Provider) -> None:
    http = ProviderHttp()
    anna = person("anna")
    token = log_in(settings(provider, client_id=OTHER_CLIENT), world(anna)).tokens.id_token
    with pytest.raises(Unauthenticated) as caught:
        verified(http, discover(provider.issuer, http), CLIENT, token, SystemClock().now(), nonce=None)
    assert caught.value.reason == Reason.ID_TOKEN_AUDIENCE


def test_the_accounts_are_told_with_their_groups(provider: Provider) -> None:
    import jwt

    done = log_in(settings(provider), world(person("anna")))
    claims = jwt.decode(done.tokens.id_token.reveal(), options={"verify_signature": False})
    assert claims["groups"] == list(ACCOUNTS["anna"].groups)
