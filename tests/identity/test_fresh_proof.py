"""A fresh login for one act: whose, how strong, how fresh, and for what."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, RESUME_SUSPENSION, nonce_of
from broker.errors import BrokerError, Denied
from broker.identity.fresh_proof import FRESH, FreshProof, prove
from broker.identity.id_token import LEEWAY, Issuer
from broker.identity.oidc_keys import KeySet
from tests.forge import NOW
from tests.forge_oidc import ForgedProvider

PROVIDER = ForgedProvider("https://idp.example.org")
KEYS = KeySet.from_jwks(PROVIDER.document())
STRONG = Issuer(PROVIDER.url, acr=frozenset({"phr", "phrh"}), amr=frozenset({"mfa"}))
NONCE = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": "acc-1", "digest": "ab" * 32})
START = int(NOW.timestamp())


def proven(
    token: str, *, issuer: Issuer = STRONG, filed: timedelta = timedelta(minutes=-1), person: str = "anna"
) -> FreshProof:
    return prove(
        token,
        issuer,
        KEYS,
        NOW,
        audience="jit-broker",
        nonce=NONCE,
        not_before=NOW + filed,
        person=(PROVIDER.url, person),
    )


def fresh(subject: str = "anna", **changes: object) -> str:
    good = {"nonce": NONCE, "acr": "phr", "amr": ["pwd", "mfa"]}
    return PROVIDER.token(subject, "jit-broker", **{**good, **changes})  # type: ignore[arg-type]


def test_a_fresh_login_for_exactly_this_is_a_proof_and_keeps_the_signed_token() -> None:
    token = fresh()
    proof = proven(token)
    assert proof.id_token.subject == "anna" and proof.raw.reveal() == token
    assert token not in repr(proof)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": None}, "ID_TOKEN_NONCE"),  # the cached token of `broker login`
        ({"nonce": nonce_of(RESUME_SUSPENSION, {"suspension_id": "s", "reason": "r"})}, "ID_TOKEN_NONCE"),
        ({"auth_time": None}, "ID_TOKEN_TOO_OLD"),
        ({"auth_time": START - FRESH // timedelta(seconds=1) - 1}, "ID_TOKEN_TOO_OLD"),
        ({"auth_time": START - 66}, "FRESH_LOGIN_TOO_EARLY"),  # a minute and what clocks may differ before
        ({"subject": "berta"}, "FRESH_LOGIN_OF_ANOTHER"),
        ({"acr": None}, "FRESH_LOGIN_TOO_WEAK"),
        ({"acr": "pwd"}, "FRESH_LOGIN_TOO_WEAK"),
        ({"amr": None}, "FRESH_LOGIN_TOO_WEAK"),
        ({"amr": ["pwd"]}, "FRESH_LOGIN_TOO_WEAK"),
        ({"aud": "on-behalf-of"}, "ID_TOKEN_AUDIENCE"),
    ],
)
def test_what_is_no_proof(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(BrokerError) as refused:
        proven(fresh(**changes))  # type: ignore[arg-type]
    assert refused.value.reason == reason and refused.value.hint


def test_nothing_is_demanded_of_strength_where_operators_configured_nothing() -> None:
    assert proven(fresh(acr=None, amr=None), issuer=Issuer(PROVIDER.url))


def test_a_login_in_the_second_in_which_it_was_filed_counts() -> None:
    assert proven(fresh(), filed=timedelta(milliseconds=999))
    with pytest.raises(Denied):
        proven(fresh(), filed=timedelta(seconds=5, milliseconds=1))


def test_a_login_may_be_before_what_it_is_for_by_what_clocks_may_differ_and_no_more() -> None:
    assert proven(fresh(), filed=LEEWAY)
    with pytest.raises(Denied) as refused:
        proven(fresh(), filed=LEEWAY + timedelta(microseconds=1))
    filed = (NOW + LEEWAY + timedelta(microseconds=1)).isoformat()
    assert refused.value.metadata == {"authTime": NOW.isoformat(), "notBefore": filed}


def test_what_comes_to_be_with_the_act_takes_any_fresh_login() -> None:
    token = fresh(auth_time=START - 299)
    how = {"audience": "jit-broker", "nonce": NONCE, "person": (PROVIDER.url, "anna")}
    assert prove(token, STRONG, KEYS, NOW, not_before=None, **how)  # type: ignore[arg-type]


def test_the_nonce_is_short_text_of_a_url() -> None:
    assert len(NONCE) == 43 and NONCE.isascii() and not set(NONCE) & set("+/=")


NAMES = st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=8), max_size=4)


@given(st.sampled_from(["A", "B", "ApproveAccessRequest"]), NAMES, st.sampled_from(["A", "B"]), NAMES)
def test_two_acts_have_one_nonce_only_if_they_are_one_act(
    one: str, fields: dict[str, str], other: str, others: dict[str, str]
) -> None:
    same = (one, fields) == (other, others)
    assert (nonce_of(one, fields) == nonce_of(other, others)) is same
    assert nonce_of(one, fields) == nonce_of(one, dict(reversed(fields.items())))


@pytest.mark.parametrize(("action", "fields"), [("", {"a": "b"}), ("A", {"": "b"})])
def test_what_has_no_name_has_no_nonce(action: str, fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names"):
        nonce_of(action, fields)
