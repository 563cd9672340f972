"""Which form fits which kind of credential, and what a token's file holds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from broker.client.forms import Form, fits, token_of
from broker.lease.credential import AwsAccessKey, AwsSession, Credential, DatabaseLogin
from broker.secret import Secret

LOGIN = DatabaseLogin("postgresql", "db", 5432, "orders", "u", Secret("p"))
AWS = AwsSession("ASIA", Secret("sk"), Secret("st"), "eu-central-1", "arn:aws:sts::1:assumed-role/r/s", "{}")
KEY = AwsAccessKey("AKIA", Secret("sk"), "eu-central-1")


@dataclass(frozen=True)
class AccessToken:
    """A kind whose whole secret is one token."""

    access_token: Secret
    note: str = ""


TOKEN: Credential = AccessToken(Secret("t0ken"))  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("credential", "able"),
    [
        (LOGIN, {Form.ENVIRONMENT, Form.PGPASS}),
        (AWS, {Form.ENVIRONMENT, Form.CREDENTIAL_PROCESS, Form.CONTAINER}),
        (KEY, {Form.ENVIRONMENT, Form.CREDENTIAL_PROCESS}),
        (TOKEN, {Form.ENVIRONMENT, Form.TOKEN}),
    ],
)
def test_the_table(credential: Credential, able: set[Form]) -> None:
    assert {form for form in Form if fits(form, type(credential))} == able


def test_a_session_with_a_token_among_its_keys_is_no_token() -> None:
    assert token_of(AWS) is None
    assert token_of(LOGIN) is None
    found = token_of(TOKEN)
    assert found is not None
    assert found.reveal() == "t0ken"
