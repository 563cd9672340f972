"""Which secret it was: found again by whoever has both the secret and the key, and by nobody else."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from broker.lease.credential import Credential, DatabaseLogin, StaticSecret, WrappedSecret, X509Certificate
from broker.lease.fingerprint import fingerprint, fingerprints, secrets_in
from broker.secret import Secret

KEY = b"k" * 32
LOGIN = DatabaseLogin("postgresql", "db", 5432, "orders", "jb-1", Secret("hunter2"))
STATIC = StaticSecret("kv/app", 3, {"user": Secret("u"), "pass": Secret("p")})
WRAPPED = WrappedSecret(Secret("token"), "accessor", datetime(2026, 1, 1, tzinfo=UTC), "https://bao", "", "static")


def digest(secret: str) -> str:
    """As docs/audit-trail.md says it, with nothing of ours."""
    return hmac.new(KEY, b"secret\0" + secret.encode(), hashlib.sha256).hexdigest()


def test_it_is_an_hmac_of_the_secret_and_nothing_shorter() -> None:
    assert fingerprint(KEY, Secret("hunter2")) == digest("hunter2")
    assert fingerprint(b"x" * 32, Secret("hunter2")) != digest("hunter2")


@pytest.mark.parametrize(
    ("credential", "names"),
    [
        (LOGIN, {"password": "hunter2"}),
        (STATIC, {"values.user": "u", "values.pass": "p"}),
        (WRAPPED, {"wrapping_token": "token"}),
        (X509Certificate("pem", "ca", "01"), {}),
    ],
)
def test_every_field_that_opens_a_door_is_found_and_no_other(credential: Credential, names: dict[str, str]) -> None:
    assert {name: secret.reveal() for name, secret in secrets_in(credential)} == names


@pytest.mark.parametrize(
    ("credential", "inside", "told"),
    [
        (LOGIN, None, {"password": "hunter2"}),
        (WRAPPED, STATIC, {"values.user": "u", "values.pass": "p", "wrapping_token": "token"}),
    ],
)
def test_the_trail_says_one_digest_each_and_which_key_made_them(
    credential: Credential, inside: Credential | None, told: dict[str, str]
) -> None:
    expected = {name: digest(secret) for name, secret in told.items()}
    assert fingerprints("key-1", KEY, credential, inside) == {"key_id": "key-1", **expected}
