"""From what the operator wrote to a running adapter: the one table of connector kinds.

A kind's adapter, with the client library of its upstream, is imported when there is a connector of it: they are a
quarter of brokerd's start, and hardly anybody has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from broker.connectors.lending import Lending
from broker.connectors.own_identity import NoOwnToken, OwnIdentity
from broker.connectors.settings import Resolve, Settings
from broker.errors import InvalidInput, Reason
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.ports.deploys import ConnectorSpec

# By kind: whose KINDS has it.
_BUILT_BY: Mapping[str, str] = {
    "vault-database": "build_vault",
    "vault-pki": "build_vault",
    "vault-ssh": "build_vault",
    "vault-kv": "build_vault",
    "vault-kubernetes": "build_vault",
    "vault-aws-user": "build_vault",
    "aws-sts": "build_aws",
    "postgresql": "build_postgresql",
    "gcp-token": "build_gcp",
    "gcp-pool": "build_gcp",
    "minio-sts": "build_minio",
}


def build(
    spec: ConnectorSpec,
    resolve: Resolve,
    clock: Clock,
    own: OwnIdentity | None = None,
    lending: Lending | None = None,
) -> Connector:
    """The connector of ``spec``; nothing is connected yet. Raises InvalidInput (CONFIG_INVALID), BrokerError.

    ``own``: the broker's own JWT-SVIDs, for settings that log in with them. ``lending``: the ledger, for kinds that
    lend accounts.
    """
    module = _BUILT_BY.get(spec.kind)
    if module is None:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"connector {spec.name} is of an unknown kind {spec.kind!a}.",
            hint=f"Kinds are: {', '.join(sorted(_BUILT_BY))}.",
            metadata={"connector": spec.name, "kind": ascii(spec.kind)},
        )
    settings = Settings(spec.name, spec.settings, resolve, own or NoOwnToken(), lending or Lending(""))
    made: Connector = import_module(f"broker.connectors.{module}").KINDS[spec.kind](settings, clock)
    return made
