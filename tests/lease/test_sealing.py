"""The seal as RFC 9180 describes it, opened by a second implementation written from the RFC, and its edges."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidInput, NotReady
from broker.lease.sealing import SUITE, Recipient, Sealed, SealedTo, check_recipient_key, seal

TO = SealedTo("lease-1", "jb-1", "spiffe://example.org/agent/one", "r1")
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()


def extract(salt: bytes, suite: bytes, label: bytes, material: bytes) -> bytes:
    """LabeledExtract, RFC 9180, section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, hashlib.sha256)


def expand(key: bytes, suite: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand, RFC 9180, section 4."""
    labeled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    made, block, number = b"", b"", 1
    while len(made) < length:
        block = hmac.digest(key, block + labeled + bytes([number]), hashlib.sha256)
        made, number = made + block, number + 1
    return made[:length]


def opened_by_the_rfc(sealed: Sealed, info: bytes) -> bytes:
    """Decap (4.1), KeySchedule in base mode (5.1) and Open with the first nonce (5.2); no aad."""
    kem = b"KEM" + (0x0020).to_bytes(2, "big")
    shared = PRIVATE.exchange(X25519PublicKey.from_public_bytes(sealed.encapsulated_key))
    eae_prk = extract(b"", kem, b"eae_prk", shared)
    secret = expand(eae_prk, kem, b"shared_secret", sealed.encapsulated_key + PUBLIC, 32)
    suite = b"HPKE" + b"".join(each.to_bytes(2, "big") for each in (0x0020, 0x0001, 0x0002))
    context = b"\0" + extract(b"", suite, b"psk_id_hash", b"") + extract(b"", suite, b"info_hash", info)
    root = extract(secret, suite, b"secret", b"")
    key, nonce = (expand(root, suite, name, context, size) for name, size in ((b"key", 32), (b"base_nonce", 12)))
    return AESGCM(key).decrypt(nonce, sealed.ciphertext, None)


def info_by_the_proto() -> bytes:
    """As the comment on SealedCredential says, with nothing of ours."""
    parts = (b"broker.api.v1.SealedCredential", b"lease-1", b"jb-1", b"spiffe://example.org/agent/one", b"r1")
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@given(st.binary(max_size=2000))
def test_another_implementation_opens_it_from_what_the_proto_says(plaintext: bytes) -> None:
    assert opened_by_the_rfc(seal(plaintext, PUBLIC, TO), info_by_the_proto()) == plaintext


def test_each_seal_is_its_own() -> None:
    first, second = seal(b"same", PUBLIC, TO), seal(b"same", PUBLIC, TO)
    assert first.encapsulated_key != second.encapsulated_key
    assert first.ciphertext != second.ciphertext


@given(st.data())
def test_no_changed_bit_opens(data: st.DataObject) -> None:
    recipient = Recipient()
    sealed = seal(b"a secret", recipient.public_key, TO)
    whole = bytearray(sealed.encapsulated_key + sealed.ciphertext)
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    if at == 255:  # RFC 7748 ignores this bit of a key; HPKE binds its bytes all the same
        assert whole[31] < 128
    whole[at // 8] ^= 1 << at % 8
    with pytest.raises(NotReady):
        recipient.open(SUITE, Sealed(bytes(whole[:32]), bytes(whole[32:])), TO)


@given(st.binary(max_size=70))
def test_any_bytes_are_a_key_to_seal_to_or_are_refused(key: bytes) -> None:
    try:
        check_recipient_key(key)
    except InvalidInput as refused:
        assert refused.reason == "RECIPIENT_KEY_INVALID"
    else:
        assert seal(b"x", key, TO).ciphertext


def test_the_private_half_and_the_ciphertext_do_not_print() -> None:
    recipient = Recipient()
    sealed = seal(b"a secret", recipient.public_key, TO)
    assert "ciphertext" not in repr(sealed)
    assert recipient._key.private_bytes_raw().hex() not in repr(recipient)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "has 0 bytes; an X25519 public key has 32"),
        (b"\x09" * 33, "has 33 bytes; an X25519 public key has 32"),
        ((2**255 - 19).to_bytes(32, "little"), "is not in canonical form"),
        (bytes(32), "is a point of low order, to which nothing can be sealed"),
    ],
)
def test_why_nothing_is_sealed_to_a_key_is_said_with_what_to_do(key: bytes, why: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_recipient_key(key)
    assert refused.value.message == f"recipient_public_key {why}."
    assert "fresh X25519 key pair" in refused.value.hint
    assert refused.value.metadata == {"field": "recipient_public_key"}


@pytest.mark.parametrize(("suite", "short"), [("other", 0), (SUITE, 1)])
def test_another_suite_and_half_a_key_are_told_and_not_tried(suite: str, short: int) -> None:
    recipient = Recipient()
    sealed = seal(b"a secret", recipient.public_key, TO)
    half = Sealed(sealed.encapsulated_key[short:], sealed.ciphertext)
    with pytest.raises(NotReady) as broken:
        recipient.open(suite, half, TO)
    assert broken.value.reason == "SEAL_BROKEN"
    assert f"its suite is {suite!r}, with {32 - short} bytes of key" in broken.value.message
    assert "Look at the proxy" in broken.value.hint


@pytest.mark.parametrize(
    "to",
    [
        SealedTo("lease-2", "jb-1", "spiffe://example.org/agent/one", "r1"),
        SealedTo("lease-1", "jb-2", "spiffe://example.org/agent/one", "r1"),
        SealedTo("lease-1", "jb-1", "spiffe://example.org/agent/two", "r1"),
        SealedTo("lease-1", "jb-1", "spiffe://example.org/agent/one", "r2"),
    ],
)
def test_it_opens_for_this_delivery_and_for_no_other(to: SealedTo) -> None:
    recipient = Recipient()
    sealed = seal(b"a secret", recipient.public_key, TO)
    assert recipient.open(SUITE, sealed, TO) == b"a secret"
    with pytest.raises(NotReady, match="sealed to another key, or for another delivery") as broken:
        recipient.open(SUITE, sealed, to)
    assert broken.value.reason == "SEAL_BROKEN"
