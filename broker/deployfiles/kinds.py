"""What each kind of connector is told: its settings, and the part of a template that is its own.

A new kind of connector is a ``...Settings`` and a ``...Grant`` in a file of its own beside this one
(``kinds_vault.py``), and a line in each of the tables at the end; what several need is in
``kinds_fields.py``. Any address may be ``env:NAME``, so that one set serves several places; the connector
resolves it when it is made. Secrets are always references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from broker.deployfiles.kinds_aws import AwsStsConnector, AwsStsGrant
from broker.deployfiles.kinds_fields import ParameterSegment
from broker.deployfiles.kinds_gcp import (
    PROJECT,
    GcpPoolConnector,
    GcpPoolGrant,
    GcpTokenConnector,
    GcpTokenGrant,
    pool_problems,
    token_problems,
)
from broker.deployfiles.kinds_minio import MinioStsConnector, MinioStsGrant
from broker.deployfiles.kinds_postgresql import PostgresqlConnector, PostgresqlGrant
from broker.deployfiles.kinds_statements import ResourceSegment
from broker.deployfiles.kinds_vault import (
    VaultDatabaseConnector,
    VaultDatabaseGrant,
    VaultKubernetesConnector,
    VaultKubernetesGrant,
    VaultKvConnector,
    VaultKvGrant,
    VaultPkiConnector,
    VaultPkiGrant,
    VaultSshConnector,
    VaultSshGrant,
)
from broker.deployfiles.kinds_vault_aws import VaultAwsUserConnector, VaultAwsUserGrant
from broker.files import Model

# --------------------------------------------------------------------------- the tables

GRANTS: Mapping[str, type[Model]] = {
    "vault-database": VaultDatabaseGrant,
    "vault-pki": VaultPkiGrant,
    "vault-ssh": VaultSshGrant,
    "vault-kv": VaultKvGrant,
    "vault-kubernetes": VaultKubernetesGrant,
    "vault-aws-user": VaultAwsUserGrant,
    "postgresql": PostgresqlGrant,
    "aws-sts": AwsStsGrant,
    "minio-sts": MinioStsGrant,
    "gcp-token": GcpTokenGrant,
    "gcp-pool": GcpPoolGrant,
}
# What the accounts of a template must look like where its connector gives them a meaning, and in words.
ACCOUNTS: Mapping[str, tuple[re.Pattern[str], str, str]] = {
    "aws-sts": (re.compile(r"[0-9]{12}\Z", re.ASCII), "AWS account id", "Write its 12 digits in quotes."),
    "gcp-token": (PROJECT, "project id of Google Cloud", "Write the id, not the name or the number."),
    "gcp-pool": (PROJECT, "project id of Google Cloud", "Write the id, not the name or the number."),
}
# What a grant says, held against its connector's settings: (way into the grant, message, hint) of each problem.
AGAINST: Mapping[str, Callable[[Any, Mapping[str, Any], Sequence[str]], Iterator[tuple[str, str, str]]]] = {
    "gcp-token": token_problems,
    "gcp-pool": pool_problems,
}


ConnectorEntry = Annotated[
    VaultDatabaseConnector
    | VaultPkiConnector
    | VaultSshConnector
    | VaultKvConnector
    | VaultKubernetesConnector
    | VaultAwsUserConnector
    | AwsStsConnector
    | MinioStsConnector
    | GcpTokenConnector
    | GcpPoolConnector
    | PostgresqlConnector,
    Field(discriminator="kind"),
]


def references(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Model]]:
    """Every parameter or resource segment inside a grant, with the way to it."""
    if isinstance(value, ParameterSegment | ResourceSegment):
        yield path, value
    elif isinstance(value, Model):
        for name in type(value).model_fields:
            yield from references(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from references(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from references(item, (*path, index))
