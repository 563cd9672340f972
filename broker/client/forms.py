"""A credential in the files and answers that other programs' own mechanisms read, and which form fits which kind.

Belongs here: texts, made from a credential. Where they are put, and how they are taken away again, is the business of
who puts them. Everything returned here contains the secret in clear, except where it says otherwise.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum

from broker.client.delivery import environment
from broker.client.model import Grant
from broker.lease.credential import AwsAccessKey, AwsSession, Credential, DatabaseLogin, KubernetesToken
from broker.secret import Secret


class Form(StrEnum):
    """One way to hand a credential to a program."""

    ENVIRONMENT = "environment"  # variables
    CREDENTIAL_PROCESS = "credential-process"  # what a program named in ~/.aws/config prints
    CONTAINER = "container"  # an endpoint on loopback that AWS SDKs ask
    PGPASS = "pgpass"  # libpq's password file and service file
    KUBECONFIG = "kubeconfig"  # the file that kubectl and its like read
    TOKEN = "token"  # noqa: S105 - a file that holds a token and nothing else


# The one table. ENVIRONMENT fits all.
FITS: Mapping[Form, tuple[type, ...]] = {
    Form.CREDENTIAL_PROCESS: (AwsSession, AwsAccessKey),
    Form.CONTAINER: (AwsSession,),
    Form.PGPASS: (DatabaseLogin,),
    Form.KUBECONFIG: (KubernetesToken,),
}
# Fields that hold a token, in the kinds whose whole secret is one.
_TOKEN_FIELDS = ("token", "access_token", "wrapping_token")
# In the service file that we write.
SERVICE = "broker"


def fits(form: Form, kind: type) -> bool:
    """Whether a credential of this kind can be handed over so."""
    if form is Form.TOKEN:
        return any(each.name in _TOKEN_FIELDS for each in fields(kind))
    return form is Form.ENVIRONMENT or issubclass(kind, FITS[form])


def credential_process(grant: Grant) -> str:
    """One JSON object (AWS SDKs and Tools reference, "Process credential provider"). Raises TypeError."""
    return json.dumps({"Version": 1, **_keys(grant, "SessionToken")}) + "\n"


def container_answer(grant: Grant) -> str:
    """One JSON object (AWS SDKs and Tools reference, "Container credential provider"). Raises TypeError."""
    return json.dumps({**_keys(grant, "Token"), "RoleArn": grant.aws.assumed_role_arn})


def _keys(grant: Grant, token_name: str) -> dict[str, str]:
    credential, ends = grant.credential, grant.lease.expire_time
    if ends is None:
        raise ValueError("a lease without an end has none to tell")
    keys = credential if isinstance(credential, AwsAccessKey) else grant.aws
    token = {} if isinstance(keys, AwsAccessKey) else {token_name: keys.session_token.reveal()}
    return {
        "AccessKeyId": keys.access_key_id,
        "SecretAccessKey": keys.secret_access_key.reveal(),
        **token,
        # Of the lease: our session may be shorter than the shortest that STS makes. Whole seconds: some SDKs read no
        # more.
        "Expiration": ends.replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def beside_keys(session: AwsSession) -> dict[str, str]:
    """The variables of a session that are no secret: where it is used."""
    secrets = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    return {name: value for name, value in environment(session).items() if name not in secrets}


def pgpass(login: DatabaseLogin) -> str:
    """libpq's password file (PostgreSQL 18, 32.16). For a socket, libpq looks for its directory or for localhost."""
    hosts = [login.host, "localhost"] if login.host.startswith("/") else [login.host]
    fields = (str(login.port), login.database, login.username, login.password.reveal())
    return "".join(":".join(_field(each) for each in (host, *fields)) + "\n" for host in hosts)


def service_file(login: DatabaseLogin) -> str:
    """libpq's service file (PostgreSQL 18, 32.17) with the service :data:`SERVICE`. Holds no password."""
    pairs = {"host": login.host, "port": str(login.port), "dbname": login.database, "user": login.username}
    return f"[{SERVICE}]\n" + "".join(f"{name}={_line(value)}\n" for name, value in pairs.items())


def kubeconfig(token: KubernetesToken) -> str:
    """kubectl's configuration file, which may be JSON ("Organizing Cluster Access Using kubeconfig Files")."""
    authority = base64.b64encode(token.cluster_ca.encode()).decode()
    context = {"cluster": SERVICE, "user": SERVICE, "namespace": token.namespace}
    told = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": SERVICE, "cluster": {"server": token.server, "certificate-authority-data": authority}},
        ],
        "users": [{"name": SERVICE, "user": {"token": token.token.reveal()}}],
        "contexts": [{"name": SERVICE, "context": context}],
        "current-context": SERVICE,
    }
    return json.dumps(told, indent=2) + "\n"


def _field(value: str) -> str:
    return _line(value).replace("\\", "\\\\").replace(":", "\\:")


def _line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("a line of libpq's files takes printable text")
    return value


def token_of(credential: Credential) -> Secret | None:
    """The token that a credential is; None where it is something else."""
    for name in _TOKEN_FIELDS:
        value = getattr(credential, name, None)
        if isinstance(value, Secret):
            return value
    return None
