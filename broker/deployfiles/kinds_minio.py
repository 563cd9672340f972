"""What the kind ``minio-sts`` is told: its settings, and the part of a template that is its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import SecretReference, Text, Url
from broker.deployfiles.kinds_statements import Statement, TextSegment
from broker.files import Model

_ARN = "arn:aws:s3:::"

# S3's rules for a bucket's name; a wildcard is none.
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]


class MinioStsSettings(Model):
    """A MinIO server or cluster, and the user that the broker is there."""

    endpoint_url: Url = Field(description="Where agents go, and the broker for sessions.")
    nodes: list[Url] = Field(
        [],
        max_length=64,
        description="Every server of a cluster, reached directly: each forgets a session only when it is told itself.",
    )
    user: Text = Field(description="The broker's own user (its access key), or env:NAME. Never MinIO's root user.")
    secret_key: SecretReference
    buckets: list[Bucket] = Field(
        min_length=1, max_length=256, description="All that the user's policy may reach; an examination compares."
    )
    canary_bucket: Bucket | None = Field(
        None, description="What a canary's session lists to find out whether it still works."
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")] = "us-east-1"
    ca_file: Text | None = None


def _s3_only(statement: Statement) -> Statement:
    """MinIO knows other actions, those of administrators, and a session of theirs would outlive its deadline."""
    other = [each for each in statement.actions if not each.startswith("s3:")]
    if other:
        raise ValueError(f"a session of MinIO may have s3: actions only, not {other[0]}")
    for resource in statement.resources:
        first = resource[0]
        if not isinstance(first, TextSegment) or not first.text.startswith(_ARN):
            raise ValueError(f"a resource of MinIO starts with the text {_ARN}")
    return statement


class MinioStsGrant(Model):
    """What of its user's policy this template leaves to a session."""

    policy: list[Annotated[Statement, AfterValidator(_s3_only)]] = Field(min_length=1, max_length=16)


class MinioStsConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["minio-sts"]
    settings: MinioStsSettings
