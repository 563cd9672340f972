"""A credential in the forms that other programs read.

Belongs here: libpq's connection string, and the environment variables of PostgreSQL's, AWS's and Google Cloud's tools.
Everything returned here contains the secret in clear: that is what it is for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from broker.lease.credential import (
    AwsAccessKey,
    AwsSession,
    Credential,
    DatabaseLogin,
    GcpToken,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)

# Where `broker exec` says that the files of a key are.
_FILES = ("BROKER_KEY_FILE", "BROKER_CERTIFICATE_FILE", "BROKER_CA_FILE")

# AWS SDKs and Tools reference, "Environment variables list": what could stand against any of AWS's keys.
_AWS_VARIABLES = frozenset(
    {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE"}
    | {"AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"}
    | {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_REGION"}
    | {"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_DEFAULT_REGION"}
    | {"AWS_CREDENTIAL_EXPIRATION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS"}
    | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}
)
# Variables that would override, or stand beside, the ones we set, by the kind of credential.
# PostgreSQL 18, 32.15 "Environment Variables"; AWS SDKs and Tools reference, "Environment variables list".
# `gcloud topic configurations` (CLOUDSDK_SECTION_PROPERTY); google.auth.environment_vars; Terraform's google provider.
_CONFLICTING: Mapping[type, frozenset[str]] = {
    DatabaseLogin: frozenset(
        {"PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE"}
        | {"PGSERVICEFILE", "PGREQUIREAUTH", "PGSSLCERT", "PGSSLKEY", "DATABASE_URL"}
    ),
    AwsSession: _AWS_VARIABLES,
    AwsAccessKey: _AWS_VARIABLES,
    X509Certificate: frozenset({"BROKER_CERTIFICATE", "BROKER_CA_CHAIN", *_FILES}),
    SshCertificate: frozenset({"BROKER_SSH_CERTIFICATE", *_FILES}),
    StaticSecret: frozenset(),  # its own names stand against no others
    KubernetesToken: frozenset(
        {"KUBECONFIG", "BROKER_KUBERNETES_TOKEN", "BROKER_KUBERNETES_SERVER"}
        | {"BROKER_KUBERNETES_NAMESPACE", "BROKER_KUBERNETES_CA"}
    ),
    WrappedSecret: frozenset(
        {f"{server}_{name}" for server in ("VAULT", "BAO") for name in ("ADDR", "NAMESPACE", "TOKEN")}
        | {"BROKER_WRAPPING_TOKEN"}
    ),
    GcpToken: frozenset(
        {"CLOUDSDK_AUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE"}
        | {"CLOUDSDK_AUTH_IMPERSONATE_SERVICE_ACCOUNT", "CLOUDSDK_CORE_ACCOUNT", "CLOUDSDK_CORE_PROJECT"}
        | {"CLOUDSDK_PROJECT", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"}
        | {"GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON"}
        | {"GOOGLE_IMPERSONATE_SERVICE_ACCOUNT", "GOOGLE_PROJECT", "GOOGLE_CLOUD_QUOTA_PROJECT"}
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
        case AwsAccessKey():
            keys = {
                "AWS_ACCESS_KEY_ID": credential.access_key_id,
                "AWS_SECRET_ACCESS_KEY": credential.secret_access_key.reveal(),
            }
            return keys | dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), credential.region)
        case GcpToken():
            # gcloud (with bq and gsutil) reads the first, Terraform's provider the second. Google's client libraries
            # read no bare token from anywhere: a program hands it to them.
            names = ("CLOUDSDK_AUTH_ACCESS_TOKEN", "GOOGLE_OAUTH_ACCESS_TOKEN")
            projects = ("CLOUDSDK_CORE_PROJECT", "GOOGLE_CLOUD_PROJECT")
            token = dict.fromkeys(names, credential.access_token.reveal())
            return token | (dict.fromkeys(projects, credential.project) if credential.project else {})
        case X509Certificate():
            return {"BROKER_CERTIFICATE": credential.certificate, "BROKER_CA_CHAIN": credential.ca_chain}
        case SshCertificate():
            return {"BROKER_SSH_CERTIFICATE": credential.certificate.strip()}
        case KubernetesToken():
            # Kubernetes' own tools read no token from the environment, but a file: `--deliver kubeconfig`.
            return {
                "BROKER_KUBERNETES_TOKEN": credential.token.reveal(),
                "BROKER_KUBERNETES_SERVER": credential.server,
                "BROKER_KUBERNETES_NAMESPACE": credential.namespace,
                "BROKER_KUBERNETES_CA": credential.cluster_ca,
            }
        case WrappedSecret():
            # For `bao unwrap "$BROKER_WRAPPING_TOKEN"`, or vault's.
            place = {
                "ADDR": credential.address,
                **({"NAMESPACE": credential.namespace} if credential.namespace else {}),
            }
            named = {f"{server}_{name}": value for server in ("VAULT", "BAO") for name, value in place.items()}
            return {"BROKER_WRAPPING_TOKEN": credential.wrapping_token.reveal(), **named}
        case StaticSecret():
            named = {_variable(name): value.reveal() for name, value in credential.values.items()}
            if len(named) != len(credential.values):
                raise ValueError("two fields of the secret have names that are one variable's; read it as JSON")
            return named


def _variable(field: str) -> str:
    """``api-key`` as ``BROKER_SECRET_API_KEY``."""
    return "BROKER_SECRET_" + re.sub(r"[^A-Z0-9]", "_", field.upper(), flags=re.ASCII)


def inherited(surroundings: Mapping[str, str], credential: Credential) -> dict[str, str]:
    """``surroundings`` with the credential in place of every variable that could stand against it."""
    return cleared(surroundings, credential) | environment(credential)


def cleared(surroundings: Mapping[str, str], credential: Credential) -> dict[str, str]:
    """``surroundings`` without every variable that could stand against the credential, however it is handed over."""
    conflicting = _CONFLICTING[type(credential)]
    return {name: value for name, value in surroundings.items() if name not in conflicting}
