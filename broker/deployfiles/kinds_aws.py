"""What the kind ``aws-sts`` is told: its settings, and the part of a template that is its own."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    WithJsonSchema,
    model_serializer,
    model_validator,
)

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import SecretReference, Text, Url
from broker.deployfiles.kinds_statements import Statement
from broker.files import Duration, Model

RoleName = Annotated[str, Field(pattern=r"^([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]{1,64}$")]
RoleArn = Annotated[str, Field(pattern=r"^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,512}$")]
VpcEndpoint = Annotated[str, Field(pattern=r"^vpce-[0-9a-f]{8,32}$")]


def _network(value: str) -> str:
    if "/" not in value:
        raise ValueError("must be a network in CIDR notation, as in 203.0.113.0/24 or 203.0.113.7/32")
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("must be a network in CIDR notation, without bits set behind its prefix") from None
    if ipaddress.ip_network(value).prefixlen == 0:
        raise ValueError("holds every address: that binds to nothing")
    return value


Cidr = Annotated[
    str, AfterValidator(_network), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]+$"})
]


class AwsNetwork(Model):
    """Where requests must come from: one of these addresses, or through one of these VPC endpoints."""

    source_ips: list[Cidr] = Field(default_factory=list, max_length=16)
    source_vpces: list[VpcEndpoint] = Field(default_factory=list, max_length=16)

    @model_validator(mode="after")
    def _something(self) -> AwsNetwork:
        if not self.source_ips and not self.source_vpces:
            raise ValueError("must name an address or a VPC endpoint")
        return self


def _propagation(value: timedelta) -> timedelta:
    if not timedelta(minutes=1) <= value <= timedelta(minutes=30):
        raise ValueError("must be from 1m to 30m: AWS says that it may take a few minutes")
    return value


class AwsRevocation(Model):
    """Ending sessions before their deadline, by a Deny in inline policies of the role."""

    propagation: Annotated[Duration, AfterValidator(_propagation)] = Field(
        timedelta(minutes=5), description="How long AWS may take to spread a Deny; AWS says: a few minutes."
    )
    role_name: RoleName | None = Field(
        None, description="The role that the broker assumes in the target role's account to write there; else its own."
    )
    endpoint_url: Url | None = Field(None, description="Of IAM; for a double.")


class AwsWebIdentity(Model):
    """The broker's own JWT-SVID for a session of ``role_arn``, so that no key is kept."""

    role_arn: RoleArn
    audience: Text = "sts.amazonaws.com"


class AwsStsSettings(Model):
    """AWS STS; without keys or web_identity, boto3's default chain finds the broker's own credentials."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$")]
    partition: Literal["aws", "aws-cn", "aws-us-gov", "aws-eusc"] = "aws"
    endpoint_url: Url | None = None
    # 2 to 1224 of these characters: AssumeRole's own limits. Not a secret, says AWS.
    external_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+=,.@:/-]{2,1224}$")] | None = None
    canary_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        None, description="What a canary's session lists to find out whether it still works."
    )
    canary_endpoint_url: Url | None = Field(None, description="Of S3, where it is not AWS's own.")
    access_key_id: SecretReference | None = None
    secret_access_key: SecretReference | None = None
    web_identity: AwsWebIdentity | None = None
    revocation: AwsRevocation | None = None
    network: AwsNetwork | None = None
    proves_identity: bool = Field(
        False, description="Its roles log in elsewhere by GetCallerIdentity (EKS, Vault), which no Deny stops."
    )

    examined_roles: list[RoleArn] = Field(
        default_factory=list, max_length=64, description="The roles that `broker connectors doctor` looks at."
    )

    @model_validator(mode="after")
    def _fits(self) -> AwsStsSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together or not at all")
        if self.access_key_id is not None and self.web_identity is not None:
            raise ValueError("the broker logs in with a key or with its web_identity, not with both")
        if self.proves_identity and self.revocation is not None:
            raise ValueError("what proves_identity cannot be revoked: GetCallerIdentity survives every Deny")
        return self


ManagedPolicy = Annotated[
    str,
    Field(
        pattern=r"^(arn:aws[a-z-]*:iam::aws:policy/[A-Za-z0-9+=,.@_/-]{1,512}|([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]{1,128})$"
    ),
]


class AwsStsGrant(Model):
    """The role to assume in the request's account, and what of it this template leaves."""

    role_name: RoleName
    policy: list[Statement] = Field(default_factory=list, max_length=16)
    managed_policies: list[ManagedPolicy] | None = Field(
        None, max_length=10, description="ARNs of AWS's own, or names of policies in the request's account."
    )
    network: AwsNetwork | None = None

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A template that says nothing of these keeps the digest it had before there were any.
        said: dict[str, Any] = dump(self)
        unsaid = {name for name in ("managed_policies", "network") if said[name] is None}
        return {name: value for name, value in said.items() if name not in unsaid}

    @model_validator(mode="after")
    def _grants_something(self) -> AwsStsGrant:
        if not self.policy and not self.managed_policies:
            raise ValueError("must have a policy or managed_policies: without either, the whole role would be granted")
        return self


class AwsStsConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["aws-sts"]
    settings: AwsStsSettings
