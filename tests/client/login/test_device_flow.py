"""The device flow: what the person is shown, how the provider is asked, and each way it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.client.login.device_flow import GRANT_TYPE
from broker.client.login.person import fresh_login, log_in
from broker.errors import BrokerError, Denied, NotReady, Reason, Unauthenticated
from tests.client.login.fake_provider import CLIENT, FakeProvider, Form, World

PENDING: tuple[int, Any] = (400, {"error": "authorization_pending"})
SLOW: tuple[int, Any] = (400, {"error": "slow_down"})


def on_device(provider: FakeProvider, **changes: Any) -> Any:
    return replace(provider.settings, **{"device": True, "timeout": timedelta(minutes=5), **changes})


def answering(provider: FakeProvider, *answers: tuple[int, Any]) -> None:
    """One after the other; then tokens."""
    left: Iterator[tuple[int, Any]] = iter(answers)

    def answer(form: Form) -> tuple[int, Any]:
        return next(left, (200, provider.tokens()))

    provider.answers["/token"] = answer


def test_a_login(provider: FakeProvider, world: World) -> None:
    answering(provider, PENDING, PENDING)
    done = log_in(on_device(provider), world.surroundings)
    assert done.id_token.subject == "anna"
    assert f"open {provider.url}/enter and enter the code BCDF-GHJK" in world.told[0]
    assert world.paused == [5, 5, 5]
    (began,) = provider.asked("/device")
    assert (began["client_id"], "openid" in began["scope"]) == (CLIENT, True)
    assert {(each["grant_type"], each["device_code"]) for each in provider.asked("/token")} == {(GRANT_TYPE, "d3v1c3")}
    assert world.sent_to == []
    assert "d3v1c3" not in "".join(world.told)


def test_slower_each_time_it_is_told_to(provider: FakeProvider, world: World) -> None:
    """RFC 8628, 3.5: 5 seconds more, from then on."""
    answering(provider, SLOW, PENDING, SLOW, PENDING)
    log_in(on_device(provider), world.surroundings)
    assert world.paused == [5, 10, 10, 15, 15]


def test_what_the_provider_says_of_the_interval(provider: FakeProvider, world: World) -> None:
    codes = {"device_code": "d", "user_code": "A", "verification_uri": provider.url, "expires_in": 600}
    for interval, paused in ((None, 5), (1, 1), (5.9, 5), (3600, 60)):
        said = codes if interval is None else {**codes, "interval": interval}
        provider.answers["/device"] = lambda form, said=said: (200, said)  # type: ignore[misc]
        world.paused.clear()
        log_in(on_device(provider), world.surroundings)
        assert world.paused == [paused]


@pytest.mark.parametrize(
    ("answer", "family", "reason", "told"),
    [
        ({"error": "access_denied"}, Denied, Reason.LOGIN_REFUSED, "access_denied"),
        ({"error": "expired_token"}, Unauthenticated, Reason.LOGIN_TIMED_OUT, "expired"),
        ({"error": "invalid_grant"}, Unauthenticated, Reason.LOGIN_FAILED, "invalid_grant"),
        ({}, NotReady, Reason.IDENTITY_PROVIDER_INVALID, "named no error"),
    ],
)
def test_each_end(
    provider: FakeProvider,
    world: World,
    answer: dict[str, str],
    family: type[BrokerError],
    reason: Reason,
    told: str,
) -> None:
    answering(provider, PENDING, (400, answer))
    with pytest.raises(family) as caught:
        log_in(on_device(provider), world.surroundings)
    assert (caught.value.reason, told in caught.value.message) == (reason, True)
    assert len(provider.asked("/token")) == 2


def test_nobody_enters_it(provider: FakeProvider, world: World) -> None:
    """12 s: asked after 5 and 10, never after the time is over."""
    provider.answers["/token"] = lambda form: PENDING
    with pytest.raises(Unauthenticated) as caught:
        log_in(on_device(provider, timeout=timedelta(seconds=12)), world.surroundings)
    assert (caught.value.reason, world.paused) == (Reason.LOGIN_TIMED_OUT, [5, 5])


def test_the_codes_own_life_is_the_shorter_one(provider: FakeProvider, world: World) -> None:
    codes = {"device_code": "d", "user_code": "A", "verification_uri": provider.url, "expires_in": 7}
    provider.answers["/device"] = lambda form: (200, codes)
    provider.answers["/token"] = lambda form: PENDING
    with pytest.raises(Unauthenticated, match="within 7 s"):
        log_in(on_device(provider), world.surroundings)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device_code": None}, "no device_code"),
        ({"device_code": ""}, "no device_code"),
        ({"user_code": None}, "cannot be typed"),
        ({"user_code": "\x1b[2JABCD"}, "cannot be typed"),
        ({"user_code": "A" * 65}, "nobody types"),
        ({"verification_uri": None}, "no verification_uri"),
        ({"verification_uri": "http://evil.example.org/"}, "is not https"),
        ({"verification_uri": "https://x/\n\x1b[1A"}, "verification_uri"),
        ({"expires_in": None}, "expires_in"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"interval": "5"}, "interval"),
        ({"interval": 0}, "interval"),
    ],
)
def test_codes_that_are_none(provider: FakeProvider, world: World, changes: dict[str, Any], told: str) -> None:
    codes = {"device_code": "d", "user_code": "A", "verification_uri": provider.url, "expires_in": 600, **changes}
    said = {name: each for name, each in codes.items() if each is not None}
    provider.answers["/device"] = lambda form: (200, said)
    with pytest.raises(NotReady) as caught:
        log_in(on_device(provider), world.surroundings)
    assert (caught.value.reason, told in caught.value.message) == (Reason.IDENTITY_PROVIDER_INVALID, True), caught.value
    assert world.told == []


def test_a_provider_without_it(provider: FakeProvider, world: World) -> None:
    provider.documents = {"device_authorization_endpoint": None}
    with pytest.raises(NotReady, match="no device flow") as caught:
        log_in(on_device(provider), world.surroundings)
    assert "without --device" in caught.value.hint


def test_a_device_flow_that_loses_the_nonce_signs_nothing(provider: FakeProvider, world: World) -> None:
    """RFC 8628 has no nonce, and most providers drop it."""
    with pytest.raises(Unauthenticated) as caught:
        fresh_login(on_device(provider), world.surroundings, "ResumeSuspension", {"suspension_id": "s"})
    assert (caught.value.reason, "without --device" in caught.value.hint) == (Reason.ID_TOKEN_NONCE, True)
    (began,) = provider.asked("/device")
    assert (began["prompt"], began["max_age"]) == ("login", "0")
    answering(provider)
    provider.claims["nonce"] = began["nonce"]
    again = fresh_login(on_device(provider), world.surroundings, "ResumeSuspension", {"suspension_id": "s"})
    assert again.id_token.nonce == began["nonce"]
