"""What a connector will promise, told from what the operator wrote: for whoever looks at a set that does not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from pydantic import TypeAdapter

from broker.connectors import (
    aws_contract,
    gcp_pool,
    gcp_token,
    minio_sts,
    postgresql,
    vault_aws_user,
    vault_database,
    vault_kubernetes,
    vault_kv,
    vault_pki,
    vault_ssh,
)
from broker.connectors.aws_session_policy import Network
from broker.lease.credential import Contract
from broker.ports.deploys import ConnectorSpec
from broker.scope.canonical import JsonValue


def _aws_sts(settings: Mapping[str, JsonValue]) -> Contract:
    revocation = settings.get("revocation")
    bound = revocation.get("propagation") if isinstance(revocation, Mapping) else None
    return aws_contract.contract_of(
        aws_contract.AwsStsSettings(
            region="",
            revocation=aws_contract.Revocation("", TypeAdapter(timedelta).validate_python(bound)) if bound else None,
            network=_network(settings.get("network")),
            proves_identity=settings.get("proves_identity") is True,
        )
    )


def _network(stated: JsonValue) -> Network | None:
    if not isinstance(stated, Mapping) or not stated:
        return None
    ips, vpces = (stated.get(name) for name in ("source_ips", "source_vpces"))
    return Network(*(tuple(map(str, each)) if isinstance(each, list | tuple) else () for each in (ips, vpces)))


def _vault_pki(settings: Mapping[str, JsonValue]) -> Contract:
    bound = settings.get("list_read_within")
    return vault_pki.contract(TypeAdapter(timedelta).validate_python(bound) if bound else None)


# By kind, from the settings; each the contract that the connector itself states.
CONTRACTS: Mapping[str, Callable[[Mapping[str, JsonValue]], Contract]] = {
    "vault-database": lambda settings: vault_database.CONTRACT,
    "vault-pki": _vault_pki,
    "vault-ssh": lambda settings: vault_ssh.CONTRACT,
    "vault-kv": lambda settings: vault_kv.CONTRACT,
    "vault-kubernetes": lambda settings: vault_kubernetes.CONTRACT,
    "vault-aws-user": lambda settings: vault_aws_user.CONTRACT,
    "aws-sts": _aws_sts,
    "gcp-token": lambda settings: gcp_token.CONTRACT,
    "gcp-pool": lambda settings: gcp_pool.CONTRACT,
    "postgresql": lambda settings: postgresql.CONTRACT,
    "minio-sts": lambda settings: minio_sts.CONTRACT,
}


def contract_of(spec: ConnectorSpec) -> Contract:
    """The contract of a connector that is made of ``spec``."""
    return CONTRACTS[spec.kind](spec.settings)
