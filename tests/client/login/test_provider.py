"""What a provider says of itself is believed only where no secret can go astray by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.login.http import MAX_ANSWER_BYTES, ProviderHttp, checked_url
from broker.client.login.provider import discover
from broker.dev.loopback import free_port
from broker.errors import InvalidInput, NotReady, Reason
from tests.client.login.fake_provider import FakeProvider

DISCOVERY = "/.well-known/openid-configuration"


def test_what_is_taken(provider: FakeProvider) -> None:
    found = discover(provider.url, ProviderHttp())
    assert found.issuer == provider.url
    assert found.token_endpoint == f"{provider.url}/token"
    assert found.scopes is not None
    assert "groups" in found.scopes
    assert found.says_issuer
    provider.documents = {"scopes_supported": None, "device_authorization_endpoint": None, "revocation_endpoint": None}
    bare = discover(provider.url, ProviderHttp())
    assert (bare.scopes, bare.device_authorization_endpoint, bare.revocation_endpoint) == (None, "", "")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"issuer": "https://id.example.org"}, "says that it is 'https://id.example.org'"),
        ({"issuer": None}, "says that it is None"),
        ({"issuer": ["{url}"]}, "says that it is ["),
        ({"issuer": "{url}/"}, "and not"),
        ({"token_endpoint": None}, "names no token_endpoint"),
        ({"token_endpoint": 1}, "names no token_endpoint"),
        ({"token_endpoint": "http://id.example.org/token"}, "is not https"),
        ({"token_endpoint": "https://user@id.example.org/token"}, "is not a plain https URL"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "authorization_endpoint"),
        ({"authorization_endpoint": "file:///etc/passwd"}, "authorization_endpoint"),
        ({"device_authorization_endpoint": "ftp://127.0.0.1/x"}, "device_authorization_endpoint"),
        ({"revocation_endpoint": {}}, "names no revocation_endpoint"),
        ({"jwks_uri": "https://id.example.org/#keys"}, "jwks_uri"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not have S256"),
        ({"response_types_supported": ["id_token"]}, "does not have code"),
        ({"response_types_supported": "code"}, "does not have code"),
    ],
)
def test_what_is_refused(provider: FakeProvider, changes: dict[str, Any], told: str) -> None:
    written = {
        name: each.replace("{url}", provider.url) if isinstance(each, str) else each for name, each in changes.items()
    }
    provider.documents = written
    with pytest.raises(NotReady) as caught:
        discover(provider.url, ProviderHttp())
    assert caught.value.reason == Reason.IDENTITY_PROVIDER_INVALID
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"<html>", "is not JSON"),
        (200, b"[]", "is not a JSON object"),
        (200, b'{"issuer": "a", "issuer": "b"}', "has a member twice"),
        (200, b'{"x": "' + b"x" * MAX_ANSWER_BYTES + b'"}', "is larger than"),
        (404, b"{}", "it answered 404"),
        (302, b"http://127.0.0.1:1/elsewhere", "it answered 302"),
    ],
)
def test_an_answer_that_is_none(provider: FakeProvider, status: int, body: bytes, told: str) -> None:
    provider.answers[DISCOVERY] = lambda form: (status, body)
    with pytest.raises(NotReady) as caught:
        discover(provider.url, ProviderHttp())
    assert caught.value.reason == Reason.IDENTITY_PROVIDER_INVALID
    assert told in caught.value.message


def test_an_issuer_has_no_query(provider: FakeProvider) -> None:
    with pytest.raises(InvalidInput, match="has a query"):
        discover(f"{provider.url}/?tenant=t", ProviderHttp())


def test_a_name_that_no_host_has() -> None:
    with pytest.raises(NotReady) as caught:
        discover(f"https://{'a' * 64}.example.org", ProviderHttp())
    assert caught.value.reason == Reason.IDENTITY_PROVIDER_UNREACHABLE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=6,
)
MEMBERS = ("authorization_endpoint", "token_endpoint", "jwks_uri", "scopes_supported", "device_authorization_endpoint")


@given(st.fixed_dictionaries({}, optional={name: JSON | st.just("https://id.example.org/x") for name in MEMBERS}))
def test_whatever_it_says_is_taken_or_refused(said: dict[str, Any]) -> None:
    """No document breaks the reader, and none gets an address in that no secret may go to."""
    from broker.client.login import provider as module

    try:
        found = module._checked("https://id.example.org", "https://id.example.org" + DISCOVERY, said, secure=True)
    except NotReady as error:
        assert error.reason == Reason.IDENTITY_PROVIDER_INVALID
    else:
        for url in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
            assert url.startswith("https://")


def test_nobody_there() -> None:
    with pytest.raises(NotReady) as caught:
        discover(f"http://127.0.0.1:{free_port()}", ProviderHttp())
    assert caught.value.reason == Reason.IDENTITY_PROVIDER_UNREACHABLE
    assert "refused" in caught.value.message
    assert "BROKER_OIDC_ISSUER" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "id.example.org",
        "http://id.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "https://",
        "https://id.example.org/a b",
        "https://id.example.org/#x",
        "https://id.example.org:0",
        "https://[::1",
        "https://me:you@id.example.org",
        "https://id.example.org/\x1b[2J",
        "https://id.example.org/" + "x" * 3000,
    ],
)
def test_where_no_secret_goes(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_url(url)
    assert caught.value.reason == Reason.CONFIG_INVALID
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://id.example.org/realms/x", "http://127.0.0.1:8080", "http://[::1]:1/", "http://localhost:99"]
)
def test_where_one_may(url: str) -> None:
    assert checked_url(url).geturl() == url


def test_a_provider_on_https_sends_nobody_to_http(provider: FakeProvider) -> None:
    """Not even to this machine: whoever listens here is not the provider."""
    from broker.client.login import provider as module

    said = {**provider._document(), "issuer": "https://id.example.org"}
    with pytest.raises(NotReady) as caught:
        module._checked("https://id.example.org", "https://id.example.org" + DISCOVERY, said, secure=True)
    assert "is not https" in caught.value.message


def test_an_answer_that_breaks_off(provider: FakeProvider) -> None:
    """Whatever its status: what it promised does not come, and it is told as no answer."""
    for status in (200, 500):
        provider.cut_off = True
        provider.answers[DISCOVERY] = lambda form, status=status: (status, b"{}")  # type: ignore[misc]
        with pytest.raises(NotReady) as caught:
            discover(provider.url, ProviderHttp())
        assert caught.value.reason == Reason.IDENTITY_PROVIDER_UNREACHABLE
