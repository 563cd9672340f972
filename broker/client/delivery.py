"""A credential in the forms that other programs read.

Belongs here: libpq's connection string, and the environment variables of PostgreSQL's and AWS's tools.
Everything returned here contains the secret in clear: that is what it is for.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.lease.credential import AwsSession, Credential, DatabaseLogin

# Variables that would override, or stand beside, the ones we set, by the kind of credential.
# PostgreSQL 18, 32.15 "Environment Variables"; AWS SDKs and Tools reference, "Environment variables list".
_CONFLICTING: Mapping[type, frozenset[str]] = {
    DatabaseLogin: frozenset(
        {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"}
        | {"PGSERVICEFILE", "PGREQUIREAUTH", "PGSSLCERT", "PGSSLKEY", "DATABASE_URL"}
    ),
    AwsSession: frozenset(
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE"}
        | {"AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"}
        | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_REGION"}
        | {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_DEFAULT_REGION"}
        | {"AWS_CREDENTIAL_EXPIRATION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS"}
        | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}
    ),
}


def conninfo(login: DatabaseLogin) -> str:
    """A libpq connection string (PostgreSQL 18, 34.1.1.1 "Keyword/Value Connection Strings").

    Every value is quoted, with backslashes before quotes and backslashes, so that none can end early
    and add a keyword of its own. Raises ValueError for an engine that is not PostgreSQL, or a zero byte.
    """
    if login.engine != "postgresql":
        raise ValueError(f"libpq connects to PostgreSQL, not to {login.engine!a}")
    pairs = {
        "host": login.host,
        "port": str(login.port),
        "dbname": login.database,
        "user": login.username,
        "password": login.password.reveal(),
    }
    return " ".join(f"{keyword}={_quoted(value)}" for keyword, value in pairs.items())


def _quoted(value: str) -> str:
    if "\0" in value:
        raise ValueError("a connection string cannot contain a zero byte")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def environment(credential: Credential) -> dict[str, str]:
    """The variables that the upstream's own tools read."""
    match credential:
        case DatabaseLogin():
            return {
                "PGHOST": credential.host,
                "PGPORT": str(credential.port),
                "PGDATABASE": credential.database,
                "PGUSER": credential.username,
                "PGPASSWORD": credential.password.reveal(),
            }
        case AwsSession():
            variables = {
                "AWS_ACCESS_KEY_ID": credential.access_key_id,
                "AWS_SECRET_ACCESS_KEY": credential.secret_access_key.reveal(),
                "AWS_SESSION_TOKEN": credential.session_token.reveal(),
            }
            if credential.endpoint_url:
                variables["AWS_ENDPOINT_URL"] = credential.endpoint_url
            regions = ("AWS_REGION", "AWS_DEFAULT_REGION")
            return variables | (dict.fromkeys(regions, credential.region) if credential.region else {})


def inherited(surroundings: Mapping[str, str], credential: Credential) -> dict[str, str]:
    """``surroundings`` with the credential in place of every variable that could stand against it."""
    conflicting = _CONFLICTING[type(credential)]
    kept = {name: value for name, value in surroundings.items() if name not in conflicting}
    return kept | environment(credential)
