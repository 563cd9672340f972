"""What each kind of connector is told: its settings, and the part of a template that is its own.

A new kind of connector is a ``...Settings`` and a ``...Grant`` in a file of its own beside this one
(``kinds_vault.py``), and a line in each of the tables at the end; what several need is in
``kinds_fields.py``. Any address may be ``env:NAME``, so that one set serves several places; the connector
resolves it when it is made. Secrets are always references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from broker.deployfiles.kinds_fields import ParameterSegment, SecretReference, Text, Url
from broker.deployfiles.kinds_vault import VaultDatabaseConnector, VaultDatabaseGrant
from broker.files import Model

_ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:", re.ASCII)


# --------------------------------------------------------------------------- aws-sts


class AwsStsSettings(Model):
    """AWS STS; without keys, boto3's default chain finds the broker's own credentials."""

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

    @model_validator(mode="after")
    def _both_or_neither(self) -> AwsStsSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key come together or not at all")
        return self


class TextSegment(Model):
    """Literal text, as the operator wrote it."""

    text: Text


class ResourceSegment(Model):
    """The resource named in the request."""

    resource: Literal[True]


def _segment(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict) or len(value) != 1 or value.keys().isdisjoint({"text", "parameter", "resource"}):
        raise ValueError("must be a text, {parameter: NAME} or {resource: true}")
    return value


def _segments(value: object) -> object:
    return [value] if isinstance(value, str) else value


# Text may stand for {text: ...}, and one text for a list of one segment.
AnySegment = TextSegment | ParameterSegment | ResourceSegment
Segment = Annotated[AnySegment, BeforeValidator(_segment, json_schema_input_type=str | AnySegment)]
Segments = Annotated[
    list[Segment],
    Field(min_length=1, max_length=16),
    BeforeValidator(_segments, json_schema_input_type=str | list[Segment]),
]


def _arn(segments: list[Segment]) -> list[Segment]:
    first = segments[0]
    if not isinstance(first, TextSegment) or not (_ARN.match(first.text) or (first.text == "*" and len(segments) == 1)):
        raise ValueError('must start with the text of an ARN (arn:aws:service:...), or be "*" alone')
    return segments


Arn = Annotated[Segments, AfterValidator(_arn)]
Action = Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Za-z][A-Za-z0-9]*\*?$")]
ConditionOperator = Annotated[str, Field(pattern=r"^((ForAnyValue|ForAllValues):)?[A-Z][A-Za-z]+$")]
ConditionKey = Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Za-z0-9/:._+=@-]+$")]


class Statement(Model):
    """One Allow of the session policy. Text and values are joined as data, after both were checked."""

    sid: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")] | None = None
    actions: list[Action] = Field(min_length=1, max_length=32)
    resources: list[Arn] = Field(min_length=1, max_length=32)
    conditions: dict[ConditionOperator, dict[ConditionKey, list[Segments]]] | None = None


class AwsStsGrant(Model):
    """The role to assume in the request's account, and what of it this template leaves."""

    role_name: Annotated[str, Field(pattern=r"^([A-Za-z0-9+=,.@_-]+/)*[A-Za-z0-9+=,.@_-]{1,64}$")]
    policy: list[Statement] = Field(min_length=1, max_length=16)


# --------------------------------------------------------------------------- the tables

GRANTS: Mapping[str, type[Model]] = {"vault-database": VaultDatabaseGrant, "aws-sts": AwsStsGrant}
# What the accounts of a template must look like where its connector gives them a meaning.
ACCOUNTS: Mapping[str, re.Pattern[str]] = {"aws-sts": re.compile(r"[0-9]{12}\Z", re.ASCII)}


class AwsStsConnector(Model):
    """One entry of connectors.yaml."""

    kind: Literal["aws-sts"]
    settings: AwsStsSettings


ConnectorEntry = Annotated[VaultDatabaseConnector | AwsStsConnector, Field(discriminator="kind")]


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
