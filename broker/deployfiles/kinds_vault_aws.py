"""What kind ``vault-aws-user`` is told: an AWS secrets engine of Vault or OpenBao, and which role of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import NameOrParameter, PathPart, Url
from broker.deployfiles.kinds_vault import VaultUpstream
from broker.files import Model


class VaultAwsUserSettings(VaultUpstream):
    """An AWS secrets engine of Vault or OpenBao, which makes an IAM user for each lease."""

    mount: PathPart = "aws"
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$", description="For agents.")]
    canary_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = Field(
        None, description="What a canary's key lists, to show whether it still works."
    )
    canary_endpoint_url: Url | None = Field(None, description="Of S3, where it is not AWS's own.")


class VaultAwsUserGrant(Model):
    """Which role of the engine the user is made by: always one, or the one that a parameter names."""

    role: NameOrParameter


class VaultAwsUserConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["vault-aws-user"]
    settings: VaultAwsUserSettings
