"""The login that is kept: whose file it may be, when it is renewed, and what is said when it cannot be."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.client.login.cached import CachedLogin, Kept, LoginCache, revoke, state_directory
from broker.client.login.person import log_in
from broker.errors import InvalidInput, NotReady, Reason, Unauthenticated
from broker.secret import Secret
from tests.client.login.fake_provider import CLIENT, FakeProvider, World
from tests.forge import NOW


@pytest.fixture
def cache(provider: FakeProvider, tmp_path: Path) -> LoginCache:
    return LoginCache(tmp_path / "state" / "jit-broker", provider.url, CLIENT)


def kept(provider: FakeProvider, world: World, cache: LoginCache) -> Kept:
    done = log_in(provider.settings, world.surroundings)
    cache.write(Kept.of(done.id_token, done.tokens))
    found = cache.read()
    assert found is not None
    return found


def source(provider: FakeProvider, world: World, cache: LoginCache) -> CachedLogin:
    return CachedLogin(cache, provider.settings, world.surroundings)


def test_kept_for_its_owner_alone(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    one = kept(provider, world, cache)
    assert one.subject == "anna"
    assert one.expires_at == NOW + timedelta(minutes=5)
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700
    assert source(provider, world, cache).token() == one.id_token.reveal()
    assert [each.name for each in cache.path.parent.iterdir()] == [cache.path.name]


def test_a_directory_that_others_can_read_is_closed(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    cache.path.parent.mkdir(parents=True, mode=0o755)
    kept(provider, world, cache)
    assert stat.S_IMODE(cache.path.parent.stat().st_mode) == 0o700


def test_each_issuer_and_application_has_its_own(tmp_path: Path) -> None:
    whose = [("https://a", "b"), ("https://a", "c"), ("https://b", "b"), ("https://ab", "")]
    assert len({LoginCache(tmp_path, *each).path for each in whose}) == len(whose)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_use(provider: FakeProvider, world: World, cache: LoginCache, mode: int) -> None:
    kept(provider, world, cache)
    cache.path.chmod(mode)
    with pytest.raises(InvalidInput, match="may be used by others") as caught:
        source(provider, world, cache).token()
    assert "broker logout" in caught.value.hint


def test_a_link_is_no_file(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    kept(provider, world, cache)
    elsewhere = cache.path.with_name("elsewhere")
    cache.path.rename(elsewhere)
    cache.path.symlink_to(elsewhere)
    with pytest.raises(InvalidInput, match="cannot be read"):
        cache.read()
    cache.forget()
    cache.path.mkdir()
    with pytest.raises(InvalidInput, match="Is a directory"):
        cache.read()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "not json",
        '{"version": 1, "version": 1}',
        json.dumps({"version": 2}),
        "x" * 70_000,
    ],
)
def test_nonsense(cache: LoginCache, text: str) -> None:
    cache.path.parent.mkdir(parents=True)
    cache.path.write_text(text)
    cache.path.chmod(0o600)
    with pytest.raises(InvalidInput) as caught:
        cache.read()
    assert (caught.value.reason, str(cache.path) in caught.value.message) == (Reason.CONFIG_INVALID, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id_token", ""),
        ("id_token", None),
        ("id_token", 5),
        ("expires_at", "soon"),
        ("expires_at", 5),
        ("refresh_token", ""),
        ("issuer", "https://evil.example.org"),
        ("client_id", "another-application"),
        ("version", 0),
    ],
)
def test_a_member_that_is_wrong(
    provider: FakeProvider, world: World, cache: LoginCache, name: str, value: object
) -> None:
    kept(provider, world, cache)
    said = json.loads(cache.path.read_text())
    cache.path.write_text(json.dumps({**said, name: value}))
    with pytest.raises(InvalidInput) as caught:
        cache.read()
    assert said["id_token"] not in str(caught.value)


def test_nobody_is_logged_in(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    with pytest.raises(Unauthenticated) as caught:
        source(provider, world, cache).token()
    assert (caught.value.reason, caught.value.hint) == (Reason.LOGIN_REQUIRED, "Run: broker login")
    assert not cache.path.parent.exists()


def test_renewed_when_it_is_about_to_end(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    """It lives 300 s, and one with 10 s or less left may end on its way."""
    first = kept(provider, world, cache)
    login = source(provider, world, cache)
    world.now = NOW + timedelta(seconds=289)
    assert login.token() == first.id_token.reveal()
    assert len(provider.asked("/token")) == 1
    world.now = NOW + timedelta(seconds=290)
    provider.refresh_token = "refresh-2"
    provider.claims = {"exp": int(NOW.timestamp()) + 600}
    renewed = login.token()
    assert renewed != first.id_token.reveal()
    form = provider.asked("/token")[-1]
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "refresh-1")
    after = cache.read()
    assert after is not None
    assert after.id_token.reveal() == renewed
    assert after.refresh_token == Secret("refresh-2")
    assert login.token() == renewed
    assert len(provider.asked("/token")) == 2


def test_a_refresh_token_that_is_not_replaced_stays(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    provider.refresh_token = None
    provider.claims = {"exp": int(NOW.timestamp()) + 600}
    source(provider, world, cache).token()
    after = cache.read()
    assert after is not None
    assert after.refresh_token == Secret("refresh-1")


def test_two_at_once_renew_it_once(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    """Providers that rotate refresh tokens take the second use of one for theft."""
    kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    provider.claims = {"exp": int(NOW.timestamp()) + 600}
    both = threading.Barrier(4)
    got: list[str] = []

    def one() -> None:
        both.wait()
        got.append(source(provider, world, cache).token())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(got) == 4
    assert len(set(got)) == 1
    assert [form["grant_type"] for form in provider.asked("/token")] == ["authorization_code", "refresh_token"]


def test_one_that_cannot_be_renewed_says_what_to_do(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    provider.refresh_token = None
    kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    with pytest.raises(Unauthenticated, match="Your login ended at 2031-05-01T12:05:00Z") as caught:
        source(provider, world, cache).token()
    assert (caught.value.reason, caught.value.hint) == (Reason.LOGIN_REQUIRED, "Run: broker login")


def test_a_renewal_that_is_refused_or_anothers(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    before = kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    provider.answers["/token"] = lambda form: (400, {"error": "invalid_grant"})
    with pytest.raises(Unauthenticated, match=r"does not renew it \(invalid_grant\)") as caught:
        source(provider, world, cache).token()
    assert caught.value.reason == Reason.LOGIN_REQUIRED
    end = int(NOW.timestamp()) + 600
    provider.answers["/token"] = lambda form: (200, {"id_token": provider.forged.token("eve", CLIENT, exp=end)})
    with pytest.raises(Unauthenticated, match="another person's"):
        source(provider, world, cache).token()
    assert cache.read() == before


def test_a_provider_that_is_down_is_told_as_that(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    provider.answers["/.well-known/openid-configuration"] = lambda form: (503, {})
    with pytest.raises(NotReady, match="it answered 503"):
        source(provider, world, cache).token()
    assert cache.read() is not None


def test_nothing_is_spent_where_the_keys_cannot_be_had(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    """A provider that rotates refresh tokens would take the one that is kept, used again, for theft."""
    kept(provider, world, cache)
    world.now = NOW + timedelta(seconds=300)
    provider.refresh_token = "refresh-2"
    provider.claims = {"exp": int(NOW.timestamp()) + 600}
    provider.answers["/jwks"] = lambda form: (503, {})
    with pytest.raises(NotReady, match="it answered 503"):
        source(provider, world, cache).token()
    del provider.answers["/jwks"]
    source(provider, world, cache).token()
    assert [form.get("refresh_token") for form in provider.asked("/token")] == [None, "refresh-1"]


def test_logging_out_at_the_provider(provider: FakeProvider, world: World, cache: LoginCache) -> None:
    one = kept(provider, world, cache)
    assert revoke(one, provider.settings, world.surroundings)
    assert provider.asked("/revoke") == [
        {"token": "refresh-1", "token_type_hint": "refresh_token", "client_id": CLIENT}
    ]
    provider.answers["/revoke"] = lambda form: (400, {"error": "unsupported_token_type"})
    assert not revoke(one, provider.settings, world.surroundings)
    provider.documents = {"revocation_endpoint": None}
    assert not revoke(one, provider.settings, world.surroundings)
    assert revoke(replace(one, refresh_token=None), provider.settings, world.surroundings)


def test_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = tmp_path / ".local" / "state" / "jit-broker"
    assert state_directory({"XDG_STATE_HOME": "/var/x"}) == Path("/var/x/jit-broker")
    assert state_directory({}) == usual
    assert state_directory({"XDG_STATE_HOME": "relative"}) == usual
    assert state_directory({"XDG_STATE_HOME": ""}) == usual


def test_a_place_that_cannot_be_written(provider: FakeProvider, world: World, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    cache = LoginCache(file / "jit-broker", provider.url, CLIENT)
    done = log_in(provider.settings, world.surroundings)
    with pytest.raises(InvalidInput, match="cannot be written"):
        cache.write(Kept.of(done.id_token, done.tokens))
    with pytest.raises(InvalidInput, match="cannot be written"), cache.locked():
        pass


def test_a_write_that_fails_leaves_what_was(
    provider: FakeProvider, world: World, cache: LoginCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(provider, world, cache)

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InvalidInput, match="No space left"):
        cache.write(replace(before, subject="other"))
    assert cache.read() == before
    assert [each.name for each in cache.path.parent.iterdir()] == [cache.path.name]
