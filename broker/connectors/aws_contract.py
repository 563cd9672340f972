"""What an operator says about sessions of AWS roles (kind ``aws-sts``), and what can be promised about them then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from broker.connectors.aws_session_policy import Network
from broker.lease.credential import AwsSession, Binding, Contract, ContractClass

# STS API reference, AssumeRole: DurationSeconds from 900, and at most 3600 where the caller itself
# runs on a role's credentials (role chaining), which a broker usually does.
SHORTEST_SECONDS, LONGEST_SECONDS = 900, 3600

CONTRACT = Contract(
    cls=ContractClass.EXPIRY_ONLY,
    binding=Binding.NONE,
    # The deadline is a whole second, rounded down: a TTL below 2 s may come to nothing.
    ttl_floor=timedelta(seconds=2),
    ttl_ceiling=timedelta(seconds=LONGEST_SECONDS),
    on_expiry=timedelta(seconds=1),
    on_revoke=None,
    broker_dead="AWS denies every request of the session from its deadline on: the Deny is in the session itself.",
    upstream_dead="As with the broker dead; where AWS does not answer, the session cannot be used either.",
    on_broker_dead=timedelta(seconds=1),
    on_upstream_dead=timedelta(seconds=1),
    gives=AwsSession,
)


@dataclass(frozen=True, slots=True)
class Revocation:
    """How sessions are ended before their deadline: by a Deny on their role.

    ``propagation``: how long AWS may take to spread it; a session is called revoked only after that.
    ``role_name``: the role that is assumed, in the target role's account, to write there; None: the broker's own.
    """

    epoch: str
    propagation: timedelta = timedelta(minutes=5)
    role_name: str | None = None
    endpoint_url: str | None = None  # of IAM; for a double


@dataclass(frozen=True, slots=True)
class AwsStsSettings:
    """What the operator says about one such upstream. Times in seconds."""

    region: str
    partition: str = "aws"
    endpoint_url: str | None = None  # for a double or a private endpoint; None: the region's own
    external_id: str | None = None
    canary_bucket: str | None = None  # what a canary lists; None: nothing can be tried
    canary_endpoint_url: str | None = None  # of S3, for a double or a private endpoint
    timeout: float = 5.0
    threads: int = 8
    revocation: Revocation | None = None
    network: Network | None = None
    # Its roles log in elsewhere by GetCallerIdentity (EKS, Vault), which no Deny stops, not even the deadline's.
    proves_identity: bool = False
    examined_roles: tuple[str, ...] = ()  # ARNs


def contract_of(settings: AwsStsSettings) -> Contract:
    """What can be promised with these settings."""
    contract = CONTRACT
    if settings.network is not None:
        places = (*settings.network.source_ips, *settings.network.source_vpces)
        contract = replace(contract, binding=Binding.NETWORK, networks=(places,))
    if settings.proves_identity:
        # Only where STS itself ends the session at the deadline does nothing of it live on.
        return replace(contract, ttl_floor=timedelta(seconds=SHORTEST_SECONDS))
    if settings.revocation is not None:
        contract = replace(contract, cls=ContractClass.BY_POLICY, on_revoke=settings.revocation.propagation)
    return contract
