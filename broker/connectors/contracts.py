"""What a connector will promise, told from what the operator wrote: for whoever looks at a set that does not run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.connectors import aws_sts, vault_database
from broker.lease.credential import Contract
from broker.ports import ConnectorSpec
from broker.scope.canonical import JsonValue

# By kind, from the settings; each the contract that the connector itself states.
CONTRACTS: Mapping[str, Callable[[Mapping[str, JsonValue]], Contract]] = {
    "vault-database": lambda settings: vault_database.CONTRACT,
    "aws-sts": lambda settings: aws_sts.CONTRACT,
}


def contract_of(spec: ConnectorSpec) -> Contract:
    """The contract of a connector that is made of ``spec``."""
    return CONTRACTS[spec.kind](spec.settings)
