"""Kept texts: nobody reads or moves them without the key, and they are never longer than they may be."""

from __future__ import annotations

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from broker.audit.claimed import (
    KEY_BYTES,
    LONGEST,
    NONCE_BYTES,
    conceal,
    reveal,
    seal,
    unseal,
    unwrap,
    wrap,
    wrapping_key,
)
from broker.errors import Reason, Tampered

WRAPPING, KEY, NONCE = wrapping_key(b"l" * 32), b"k" * KEY_BYTES, b"n" * NONCE_BYTES


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_comes_back(text: str) -> None:
    kept = unseal(KEY, seal(KEY, {"prompt": text}, NONCE, "t", "task", "jb-1"), 7, "t", "task", "jb-1")
    assert (kept.about, kept.at_ms, kept.texts, kept.cut) == ("jb-1", 7, {"prompt": text}, ())


def test_whose_texts_they_are_and_of_when_comes_back() -> None:
    kept = unseal(KEY, seal(KEY, {"plan": "p"}, NONCE, "t", "task", "jb-1"), 7, "t", "task", "jb-1")
    assert (kept.about, kept.at_ms) == ("jb-1", 7)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * (LONGEST - 1), "x" * (LONGEST - 1)),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * (LONGEST + 1), "x" * LONGEST),
        ("x" * (LONGEST - 1) + "\N{SNOWMAN}", "x" * (LONGEST - 1)),  # three bytes, of which one would fit
    ],
)
def test_what_fits_is_kept_whole_and_what_does_not_is_cut(text: str, kept: str) -> None:
    found = unseal(KEY, seal(KEY, {"plan": text}, NONCE, "t", "task", "a"), 0, "t", "task", "a")
    assert (found.texts["plan"], found.cut) == (kept, () if kept == text else ("plan",))


def test_a_long_text_is_cut_between_characters_and_said_to_be() -> None:
    texts = {"plan": "p", "prompt": "x" + "\N{SNOWMAN}" * LONGEST}
    kept = unseal(KEY, seal(KEY, texts, NONCE, "t", "task", "a"), 0, "t", "task", "a")
    assert kept.cut == ("prompt",)
    assert len(kept.texts["prompt"].encode()) in range(LONGEST - 3, LONGEST + 1)
    assert texts["prompt"].startswith(kept.texts["prompt"])


@pytest.mark.parametrize("where", [("u", "task", "a"), ("t", "other", "a"), ("t", "task", "b")])
def test_texts_put_elsewhere_do_not_open(where: tuple[str, str, str]) -> None:
    sealed = seal(KEY, {"prompt": "p"}, NONCE, "t", "task", "a")
    with pytest.raises(Tampered):
        unseal(KEY, sealed, 0, *where)


def test_neither_with_another_key_nor_changed() -> None:
    sealed = seal(KEY, {"prompt": "p"}, NONCE, "t", "task", "a")
    for key, text in ((b"x" * 32, sealed), (KEY, sealed[:-1] + bytes([sealed[-1] ^ 1])), (KEY, b"short")):
        with pytest.raises(Tampered):
            unseal(key, text, 0, "t", "task", "a")
    wrapped = wrap(WRAPPING, KEY, NONCE, "t", "task")
    assert unwrap(WRAPPING, wrapped, "t", "task") == KEY
    for wrapping, task in ((WRAPPING, "other"), (wrapping_key(b"m" * 32), "task")):
        with pytest.raises(Tampered):
            unwrap(wrapping, wrapped, "t", task)


def test_whose_texts_do_not_open_is_told() -> None:
    for ask, named in (
        (lambda: unwrap(WRAPPING, b"", "t", "task"), "task"),
        (lambda: unseal(KEY, b"", 0, "t", "task", "jb-1"), "jb-1"),
        (lambda: reveal(WRAPPING, "", "t", "task", "request-1"), "request-1"),
    ):
        with pytest.raises(Tampered, match=named) as refused:
            ask()
        assert refused.value.reason is Reason.ROW_MAC_MISMATCH
        assert refused.value.metadata == {"rowId": named}


def test_a_concealed_text_comes_back_where_it_belongs_and_nowhere_else() -> None:
    concealed = conceal(WRAPPING, "a plan \N{SNOWMAN}", NONCE, "t", "request-1")
    assert concealed.isascii() and "plan" not in concealed
    assert reveal(WRAPPING, concealed, "t", "request-1") == "a plan \N{SNOWMAN}"
    for wrapping, text, where in (
        (WRAPPING, concealed, ("t", "request-2")),
        (WRAPPING, concealed, ("u", "request-1")),
        (wrapping_key(b"m" * 32), concealed, ("t", "request-1")),
        # Base64 is read strictly: there is one spelling.
        (WRAPPING, f"{concealed[:4]}\n{concealed[4:]}", ("t", "request-1")),
        (WRAPPING, "!", ("t", "request-1")),
    ):
        with pytest.raises(Tampered):
            reveal(wrapping, text, *where)


def test_what_is_sealed_for_one_purpose_does_not_open_for_another() -> None:
    """Keys, and the names that each is bound to, are part of the stored form: old ledgers must open for ever."""
    # HKDF-Expand (RFC 5869) of one block, by hand.
    assert hmac.digest(b"l" * 32, b"jit-broker claimed texts\x01", "sha256") == wrapping_key(b"l" * 32)
    assert conceal(WRAPPING, "a plan", NONCE, "t", "r") == (
        base64.b64encode(NONCE + AESGCM(WRAPPING).encrypt(NONCE, b"a plan", b'["text","t","r"]')).decode()
    )
    assert wrap(WRAPPING, KEY, NONCE, "t", "r") == NONCE + AESGCM(WRAPPING).encrypt(NONCE, KEY, b'["t","r","key"]')
