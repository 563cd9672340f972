"""A credential in the forms that other programs read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import psycopg.conninfo
import pytest

from broker.client.delivery import conninfo, environment, inherited
from broker.lease.credential import AwsSession, DatabaseLogin, GcpToken
from broker.secret import Secret

NASTY = r"a'b\c d=e' host='evil" + '\n\t"$(x)`é'


def login(**changes: object) -> DatabaseLogin:
    facts = {
        "engine": "postgresql",
        "host": "db",
        "port": 5432,
        "database": "orders",
        "username": "u",
        "password": Secret("p"),
    }
    return DatabaseLogin(**{**facts, **changes})  # type: ignore[arg-type]


GCP = GcpToken(
    Secret("ya29.t"),
    datetime(2031, 5, 1, tzinfo=UTC),
    "acme-data",
    "orders-reader@acme-data.iam.gserviceaccount.com",
    ("https://www.googleapis.com/auth/devstorage.read_only",),
)
AWS = AwsSession("ASIA", Secret("sk"), Secret("st"), "eu-central-1", "arn:aws:sts::1:assumed-role/r/s", "{}")


def test_a_plain_login() -> None:
    assert conninfo(login()) == "host='db' port='5432' dbname='orders' user='u' password='p'"


def test_libpq_itself_reads_back_every_character() -> None:
    """psycopg parses with libpq's own PQconninfoParse, so this is what a server would be given."""
    text = conninfo(login(host="/run/pg sockets", database=NASTY, username=NASTY, password=Secret(NASTY)))
    assert psycopg.conninfo.conninfo_to_dict(text) == {
        "host": "/run/pg sockets",
        "port": "5432",
        "dbname": NASTY,
        "user": NASTY,
        "password": NASTY,
    }


@pytest.mark.parametrize("changes", [{"engine": "mysql"}, {"database": "a\0b"}])
def test_what_libpq_cannot_take_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"libpq connects|zero byte"):
        conninfo(login(**changes))


def test_the_environment_of_each_kind() -> None:
    assert environment(login()) == {
        "PGHOST": "db",
        "PGPORT": "5432",
        "PGDATABASE": "orders",
        "PGUSER": "u",
        "PGPASSWORD": "p",
    }
    assert environment(AWS) == {
        "AWS_ACCESS_KEY_ID": "ASIA",
        "AWS_SECRET_ACCESS_KEY": "sk",
        "AWS_SESSION_TOKEN": "st",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }


def test_the_environment_of_google_clouds_tools() -> None:
    assert environment(GCP) == {
        "CLOUDSDK_AUTH_ACCESS_TOKEN": "ya29.t",
        "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.t",
        "CLOUDSDK_CORE_PROJECT": "acme-data",
        "GOOGLE_CLOUD_PROJECT": "acme-data",
    }
    assert "GOOGLE_CLOUD_PROJECT" not in environment(replace(GCP, project=""))


def test_a_session_without_a_region_sets_none() -> None:
    session = AwsSession("ASIA", Secret("sk"), Secret("st"), "", "", "")
    assert "AWS_REGION" not in environment(session)


def test_a_session_of_another_place_than_aws_says_where_it_is_good() -> None:
    session = replace(AWS, endpoint_url="https://minio.example.org:9000")
    assert environment(session) == {**environment(AWS), "AWS_ENDPOINT_URL": "https://minio.example.org:9000"}


@pytest.mark.parametrize(
    ("credential", "surroundings", "gone"),
    [
        (login(), {"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "prod", "PGPASSFILE": "/x"}, 3),
        (AWS, {"AWS_PROFILE": "admin", "AWS_WEB_IDENTITY_TOKEN_FILE": "/x", "AWS_ROLE_ARN": "arn"}, 3),
        (
            GCP,
            {
                "GOOGLE_APPLICATION_CREDENTIALS": "/admin.json",
                "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/x",
                "CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT": "admin@acme.iam.gserviceaccount.com",
                "GOOGLE_IMPERSONATE_SERVICE_ACCOUNT": "admin@acme.iam.gserviceaccount.com",
            },
            4,
        ),
        # A session of AWS must not be sent to somebody's MinIO, nor a MinIO's to another.
        (
            AWS,
            {"AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "http://x", "AWS_ENDPOINT_URL_STS": "http://x"},
            3,
        ),
    ],
)
def test_nothing_inherited_stands_against_the_credential(
    credential: DatabaseLogin | AwsSession | GcpToken, surroundings: dict[str, str], gone: int
) -> None:
    """libpq prefers PGHOSTADDR to PGHOST, and some AWS SDKs a profile to keys: the command would use those."""
    made = inherited({"PATH": "/bin", **surroundings}, credential)
    assert len(set(surroundings) - set(made)) == gone
    assert made == {"PATH": "/bin", **environment(credential)}
