"""TLS files: who else may touch them, whether they belong together, and what is kept when they do not."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from broker.api.tls_files import MAX_FILE_BYTES, IdentityFiles, read_guarded
from broker.api.tls_material import RETRY_SECONDS, LastGood, ServerIdentity
from broker.errors import BrokerError, InvalidInput, NotReady, Reason
from tests.clock import ManualClock
from tests.forge import NOW, Forged, authority

HOME = authority("example.org")
SERVER = HOME.intermediate().svid("spiffe://example.org/broker", dns=["broker.example.org"])
OTHER = HOME.svid("spiffe://example.org/broker", dns=["broker.example.org"])


class Pair:
    """A certificate and key on disk."""

    def __init__(self, folder: Path, server: Forged) -> None:
        self.certificate, self.key = folder / "broker.pem", folder / "broker.key"
        self.put(self.certificate, server.pem + server.chain_pem)
        self.put(self.key, server.key_pem)

    @staticmethod
    def put(path: Path, data: bytes, mode: int = 0o600) -> None:
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.chmod(mode)
        beside.rename(path)

    @property
    def origin(self) -> IdentityFiles:
        return IdentityFiles(self.certificate, self.key, "example.org", ManualClock(NOW))

    def load(self) -> ServerIdentity:
        return self.origin.load()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, SERVER)


def test_good_pair_is_loaded_and_its_key_does_not_print(pair: Pair) -> None:
    identity = pair.load()

    assert identity.chain_pem == SERVER.pem + SERVER.chain_pem
    assert identity.key_pem == SERVER.key_pem
    assert identity.not_after == NOW + timedelta(hours=1)
    assert identity.dns_names == ("broker.example.org",)
    assert str(identity.spiffe_id) == "spiffe://example.org/broker"
    assert SERVER.key_pem.decode().splitlines()[1] not in repr(identity)


def _encrypted() -> bytes:
    return SERVER.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    ("file", "data", "mode", "told"),
    [
        pytest.param("key", SERVER.key_pem, 0o640, "mode 0640", id="key readable by group"),
        pytest.param("key", SERVER.key_pem, 0o604, "mode 0604", id="key readable by all"),
        pytest.param("key", SERVER.key_pem, 0o620, "mode 0620", id="key writable by group"),
        pytest.param("key", OTHER.key_pem, 0o600, "does not belong to the key", id="key of another certificate"),
        pytest.param("key", SERVER.key_pem[:100], 0o600, "not an unencrypted private key", id="half a key"),
        pytest.param("key", b"", 0o600, "not an unencrypted private key", id="empty key"),
        pytest.param("key", SERVER.pem, 0o600, "not an unencrypted private key", id="certificate as key"),
        pytest.param("key", _encrypted(), 0o600, "not an unencrypted private key", id="encrypted key"),
        pytest.param("certificate", SERVER.pem, 0o646, "mode 0646", id="certificate writable by all"),
        pytest.param("certificate", b"", 0o644, "is empty", id="empty certificate"),
        pytest.param("certificate", SERVER.pem[:200], 0o644, "cannot be read as", id="half a certificate"),
        pytest.param("certificate", OTHER.pem, 0o644, "does not belong to the key", id="another certificate"),
        pytest.param("certificate", SERVER.chain_pem + SERVER.pem, 0o644, "does not belong", id="wrong order"),
        pytest.param("certificate", b"\n" * (MAX_FILE_BYTES + 1), 0o644, "is larger than", id="huge file"),
    ],
)
def test_bad_file_is_refused_by_name(pair: Pair, file: str, data: bytes, mode: int, told: str) -> None:
    pair.put(getattr(pair, file), data, mode)

    with pytest.raises(InvalidInput) as refused:
        pair.load()

    assert refused.value.reason is Reason.CONFIG_INVALID
    assert told in refused.value.message
    assert str(getattr(pair, file)) in refused.value.message
    assert "PRIVATE KEY" not in str(refused.value)


@pytest.mark.parametrize(
    ("server", "told"),
    [
        pytest.param(HOME.svid("spiffe://example.org/b", ca=True), "is a CA", id="a CA"),
        pytest.param(HOME.svid(dns=["localhost"]), "has 0 URI names", id="no SVID"),
        pytest.param(HOME.svid("spiffe://example.org/b", usage=None), "has no key usage", id="no key usage"),
        pytest.param(HOME.svid("spiffe://partner.org/b"), "the broker's own is example.org", id="of another domain"),
    ],
)
def test_certificate_that_must_not_serve_is_refused(tmp_path: Path, server: Forged, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Pair(tmp_path, server).load()


@pytest.mark.parametrize("when", [{"ends": -timedelta(minutes=1)}, {"begins": timedelta(minutes=1)}], ids=str)
def test_certificate_of_another_time_is_refused_for_now(tmp_path: Path, when: dict[str, timedelta]) -> None:
    """Its renewal, or a clock that is set right, mends it: the configuration is not wrong."""
    with pytest.raises(NotReady, match="it is 2031-05-01") as refused:
        Pair(tmp_path, HOME.svid("spiffe://example.org/b", **when)).load()
    assert refused.value.reason is Reason.OWN_SVID_EXPIRED


def test_only_regular_files_are_read_and_nothing_blocks(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o600)

    for path, told in (
        (fifo, "not a regular file"),
        (tmp_path, "not a regular file"),
        (tmp_path / "no", "No such file"),
    ):
        with pytest.raises(InvalidInput, match=told) as refused:
            read_guarded(path, private=True)
        assert refused.value.metadata == {"file": str(path)}


class Stopwatch:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


class Counted:
    """An origin that counts how often it is loaded, and can break down in ways nobody thought of."""

    def __init__(self, origin: IdentityFiles) -> None:
        self.calls = 0
        self.surprise: Exception | None = None
        self._origin = origin

    def signature(self) -> object:
        return self._origin.signature()

    def load(self) -> ServerIdentity:
        self.calls += 1
        if self.surprise:
            raise self.surprise
        return self._origin.load()


@pytest.fixture
def watched(pair: Pair) -> tuple[LastGood[ServerIdentity], Counted, Stopwatch]:
    counted, stopwatch = Counted(pair.origin), Stopwatch()
    return LastGood(counted, stopwatch), counted, stopwatch


Watched = tuple[LastGood[ServerIdentity], Counted, Stopwatch]


def test_unchanged_files_are_not_read_again(watched: Watched) -> None:
    last_good, counted, stopwatch = watched
    stopwatch.at = 1e6

    assert not last_good.refresh()
    assert (counted.calls, last_good.error) == (1, None)


def test_half_a_rotation_keeps_the_last_good_pair_whole(pair: Pair, watched: Watched) -> None:
    last_good, _, stopwatch = watched
    before = last_good.value

    pair.put(pair.certificate, OTHER.pem, 0o644)
    assert not last_good.refresh()

    assert last_good.value is before
    assert last_good.error is not None and last_good.error.reason is Reason.CONFIG_INVALID

    pair.put(pair.key, OTHER.key_pem)
    assert last_good.refresh()

    assert last_good.value.chain_pem == OTHER.pem
    assert last_good.error is None
    assert stopwatch.at == 0.0  # a changed file needs no waiting


def test_failure_is_tried_again_though_the_files_look_the_same_but_not_at_every_handshake(
    pair: Pair, watched: Watched
) -> None:
    last_good, counted, stopwatch = watched
    pair.key.unlink()
    assert not last_good.refresh()
    assert counted.calls == 2

    stopwatch.at = RETRY_SECONDS * 0.99
    assert not last_good.refresh()
    assert counted.calls == 2

    stopwatch.at = RETRY_SECONDS
    assert not last_good.refresh()
    assert counted.calls == 3


def test_first_load_has_nothing_to_fall_back_on(pair: Pair) -> None:
    pair.key.unlink()

    with pytest.raises(BrokerError):
        LastGood(pair.origin, Stopwatch())


def test_first_load_that_fails_may_have_a_fallback_and_is_made_good_later(pair: Pair) -> None:
    pair.key.unlink()
    last_good: LastGood[ServerIdentity | None] = LastGood(pair.origin, Stopwatch(), lambda: None)
    assert last_good.value is None
    assert last_good.error is not None

    pair.put(pair.key, SERVER.key_pem)
    assert last_good.refresh()
    assert last_good.value is not None
    assert last_good.error is None


def test_surprise_of_a_parser_keeps_the_last_good_too(watched: Watched, pair: Pair) -> None:
    last_good, counted, _ = watched
    before = last_good.value
    counted.surprise = RuntimeError("the key is 123")
    pair.put(pair.certificate, OTHER.pem, 0o644)

    assert not last_good.refresh()
    assert last_good.value is before
    assert last_good.error is not None and "123" not in str(last_good.error)
