"""Providers' keys: rotation, unknown keys, outages and nonsense. The network is a dict that can misbehave."""

from __future__ import annotations

import asyncio
import json

import pytest

from broker.errors import NotReady
from broker.issuers.discovery import UnfitDiscovery, discovery_url, jwks_uri_of
from broker.issuers.fetch import NotFetched
from broker.issuers.keys import AGAIN, RENEW, STALE, HttpIssuerKeys, Place
from tests.forge_oidc import ForgedProvider
from tests.patience import PATIENCE

URL = "https://idp.example.org"
JWKS = f"{URL}/keys"
PROVIDER = ForgedProvider(URL)


def discovery(issuer: str = URL, jwks_uri: object = JWKS) -> bytes:
    return json.dumps({"issuer": issuer, "jwks_uri": jwks_uri}).encode()


class Network:
    """What is at each URL; counts who asks."""

    def __init__(self, *kids: str) -> None:
        self.at: dict[str, bytes | str] = {discovery_url(URL): discovery(), JWKS: PROVIDER.document(*kids)}
        self.asked: list[str] = []
        self.changed = asyncio.Event()

    async def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        self.changed.set()
        found = self.at.get(url, "answered 404")
        if isinstance(found, str):
            raise NotFetched(found)
        return found


class Hours:
    """A monotonic clock that stands still until told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def keys_of(network: Network, hours: Hours, jwks_uri: str = "") -> HttpIssuerKeys:
    return HttpIssuerKeys({URL: Place(URL, network, jwks_uri)}, hours)


def refused(keys: HttpIssuerKeys, key_id: str = "") -> str:
    with pytest.raises(NotReady) as unavailable:
        keys.current(URL, key_id)
    assert unavailable.value.reason == "ISSUER_KEYS_UNAVAILABLE" and unavailable.value.retry_after
    return unavailable.value.message


async def test_keys_are_where_discovery_says_or_where_operators_say() -> None:
    network = Network("ec")
    for jwks_uri, asked in (("", [discovery_url(URL), JWKS]), (JWKS, [JWKS])):
        network.asked.clear()
        keys = keys_of(network, Hours(), jwks_uri)
        await keys.refresh()
        assert set(keys.current(URL).keys) == {"ec"} and network.asked == asked
        assert keys.alarms() == ()


async def test_before_the_first_answer_nobody_can_log_in() -> None:
    keys = keys_of(Network("ec"), Hours())
    assert "no keys" in refused(keys)


async def test_a_rotation_is_taken_in_and_what_was_withdrawn_is_gone() -> None:
    network, hours = Network("ec"), Hours()
    keys = keys_of(network, hours)
    await keys.refresh()
    network.at[JWKS] = PROVIDER.document("rsa")
    await keys.refresh()
    assert set(keys.current(URL).keys) == {"rsa"}


async def test_an_unknown_key_is_asked_for_at_most_once_in_a_while() -> None:
    network, hours = Network("ec"), Hours()
    keys = keys_of(network, hours)
    following = asyncio.create_task(keys.follow())
    try:
        await until(network, 2)
        # It was fetched just now: what is unknown is unknown, however often somebody asks.
        for _ in range(100):
            assert "rsa" not in keys.current(URL, "rsa").keys
        assert len(network.asked) == 2
        network.at[JWKS] = PROVIDER.document("ec", "rsa")
        hours.seconds += AGAIN.total_seconds()
        assert "rsa" in refused(keys, "rsa")
        await until(network, 4)
        await settled(lambda: "rsa" in keys.current(URL).keys)
        assert "rsa" in keys.current(URL, "rsa").keys
        for n in range(100):
            keys.current(URL, f"nonsense-{n}")
        assert len(network.asked) == 4
    finally:
        following.cancel()


@pytest.mark.parametrize("kept", [{JWKS: "answered 503"}, {discovery_url(URL): "did not answer within 5 s"}])
async def test_the_last_good_keys_stay_through_an_outage_and_not_for_ever(kept: dict[str, str]) -> None:
    network, hours = Network("ec"), Hours()
    keys = keys_of(network, hours)
    await keys.refresh()
    network.at |= kept
    hours.seconds += STALE.total_seconds()
    await keys.refresh()
    assert set(keys.current(URL, "ec").keys) == {"ec"}
    (alarm,) = keys.alarms()
    assert next(iter(kept.values())) in alarm.message and keys.tallies()[URL].failed == 1
    hours.seconds += 1
    refused(keys, "ec")
    network.at |= {JWKS: PROVIDER.document("ec"), discovery_url(URL): discovery()}
    await keys.refresh()
    assert keys.current(URL, "ec") and keys.alarms() == () and keys.tallies()[URL].age == 0


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>sign in</html>",
        b'{"keys":[]}',
        b'{"keys":[],"keys":[]}',
        json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ec"}]}).encode(),
    ],
)
async def test_nonsense_instead_of_keys_changes_nothing_but_the_alarm(document: bytes) -> None:
    network = Network("ec")
    keys = keys_of(network, Hours())
    await keys.refresh()
    network.at[JWKS] = document
    await keys.refresh()
    assert set(keys.current(URL).keys) == {"ec"} and len(keys.alarms()) == 1


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"{", "JSON"),
        (discovery("https://other.example.org"), "another issuer"),
        (discovery(f"{URL}/"), "another issuer"),
        (discovery(jwks_uri="http://idp.example.org/keys"), "https"),
        (discovery(jwks_uri="file:///etc/passwd"), "URL"),
        (discovery(jwks_uri="https://user:password@idp.example.org/keys"), "user"),
        (discovery(jwks_uri=None), "URL"),
        (discovery(jwks_uri=[JWKS]), "URL"),
    ],
)
async def test_a_discovery_document_that_cannot_be_followed(document: bytes, why: str) -> None:
    with pytest.raises(UnfitDiscovery, match=why):
        jwks_uri_of(document, URL)
    network = Network("ec")
    network.at[discovery_url(URL)] = document
    keys = keys_of(network, Hours())
    await keys.refresh()
    refused(keys)
    assert JWKS not in network.asked


def test_keys_are_renewed_long_before_they_are_stale() -> None:
    assert AGAIN < RENEW < STALE / 10


async def until(network: Network, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(network.asked) < count:
            network.changed.clear()
            await network.changed.wait()
    await settled(lambda: True)


async def settled(done: object) -> None:
    """Let what was woken have its turns."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert done()  # type: ignore[operator]
