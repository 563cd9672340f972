"""What the connectors to Google Cloud are told: their settings, and the part of a template that is their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from broker.deployfiles.kinds_canary import ConnectorModel
from broker.deployfiles.kinds_fields import PathPart, SecretReference, Text, Url
from broker.deployfiles.kinds_statements import Segments, TextSegment
from broker.files import Model

PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\Z", re.ASCII)
_EMAIL = r"^[a-z][a-z0-9-]{4,28}[a-z0-9]@[a-z][a-z0-9-]{4,28}[a-z0-9]\.iam\.gserviceaccount\.com$"
_PROVIDER = (
    r"^//iam\.googleapis\.com/projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]{4,32}"
    r"/providers/[a-z0-9-]{4,32}$"
)
ProjectId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
AccountId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
Bucket = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$")]
OAuthScope = Annotated[str, Field(pattern=r"^https://www\.googleapis\.com/auth/[a-z0-9._/-]+$", max_length=200)]
Role = Annotated[
    str,
    Field(
        pattern=r"^(roles|projects/[a-z0-9:.-]+/roles|organizations/[0-9]+/roles)/[A-Za-z0-9_.]{1,64}$",
        description="The permissions of this role are what is left, where the service account has them.",
    ),
]


class GcpFederation(Model):
    """Workload identity federation with the broker's own JWT-SVID: no key is kept."""

    audience: Annotated[str, Field(pattern=_PROVIDER, description="The provider of the workload identity pool.")]
    token_audience: Text | None = Field(None, description="Of the JWT-SVID; by default the provider's name as a URL.")


class GcpCredentials(Model):
    """As what the broker asks Google."""

    federation: GcpFederation | None = None
    key: SecretReference | None = Field(None, description="The key of a service account, as JSON. It has no end.")

    @model_validator(mode="after")
    def _one(self) -> GcpCredentials:
        if (self.federation is None) == (self.key is None):
            raise ValueError("is one of federation and key")
        return self


class GcpSettings(Model):
    """What both kinds are told."""

    credentials: GcpCredentials
    endpoint_url: Url | None = Field(None, description="In place of every host of Google's: a double.")
    canary_bucket: Bucket | None = Field(None, description="What a canary reads a name of.")


class GcpTokenSettings(GcpSettings):
    """Service accounts that the broker may impersonate."""

    service_accounts: list[Annotated[str, Field(pattern=_EMAIL)]] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _distinct(self) -> GcpTokenSettings:
        if len(set(self.service_accounts)) != len(self.service_accounts):
            raise ValueError("service_accounts names one twice")
        return self


class GcpPoolEntry(Model):
    """Service accounts that are bound alike, and lent to one lease each: PREFIX000 to PREFIX(size - 1)."""

    prefix: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{2,26}$")]
    size: int = Field(ge=1, le=1000, description="See the connector's page for how many it takes.")
    buckets: list[Bucket] = Field(
        default_factory=list, max_length=100, description="Where `broker connectors doctor` looks for their roles."
    )


class GcpPoolSettings(GcpSettings):
    """Pools of service accounts, one per template, in one project."""

    project: ProjectId
    pools: dict[PathPart, GcpPoolEntry] = Field(min_length=1)

    @model_validator(mode="after")
    def _apart(self) -> GcpPoolSettings:
        taken: dict[str, str] = {}
        for name, pool in self.pools.items():
            for number in range(pool.size):
                other = taken.setdefault(f"{pool.prefix}{number:03d}", name)
                if other != name:
                    raise ValueError(f"pools {other} and {name} share {pool.prefix}{number:03d}: an account is of one")
        return self


def _object(segments: Segments) -> Segments:
    for each in segments:
        if isinstance(each, TextSegment) and re.search(r"['\"`\\\x00-\x1f\x7f-\x9f]", each.text):
            raise ValueError("must not hold quotes, backslashes or control characters")
    return segments


def _below(segments: Segments) -> Segments:
    last = segments[-1]
    if not isinstance(last, TextSegment) or not last.text.endswith("/"):
        raise ValueError("must end in the text '/': it is a beginning of names, and what begins with a is ab, too")
    return segments


def _bucket(segments: Segments) -> Segments:
    for each in segments:
        if isinstance(each, TextSegment) and not re.fullmatch(r"[a-z0-9._-]+", each.text):
            raise ValueError("is 3 to 222 lower-case letters, digits, '.', '_' and '-'")
    return segments


class GcpRule(Model):
    """One rule of a Credential Access Boundary: a bucket, and what is left of it."""

    bucket: Annotated[Segments, AfterValidator(_bucket)]
    roles: list[Role] = Field(min_length=1, max_length=20)
    below: Annotated[Segments, AfterValidator(_object), AfterValidator(_below)] | None = Field(
        None, description="Only objects whose names begin so, and listing these."
    )
    object: Annotated[Segments, AfterValidator(_object)] | None = Field(None, description="Only this object.")

    @model_validator(mode="after")
    def _not_both(self) -> GcpRule:
        if self.below is not None and self.object is not None:
            raise ValueError("has below or object, not both")
        return self


Scopes = Annotated[list[OAuthScope], Field(min_length=1, max_length=32)]
# Google takes ten; google-auth says so only when a token is made.
Boundary = Annotated[list[GcpRule], Field(min_length=1, max_length=10)]


class GcpTokenGrant(Model):
    """Which service account of the request's account (its project), and what of its rights this template leaves."""

    service_account: AccountId
    scopes: Scopes
    boundary: Boundary | None = None


class GcpPoolGrant(Model):
    """From which pool, and what of its accounts' rights this template leaves."""

    pool: PathPart
    scopes: Scopes
    boundary: Boundary | None = None


class GcpTokenConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["gcp-token"]
    settings: GcpTokenSettings


class GcpPoolConnector(ConnectorModel):
    """One entry of connectors.yaml."""

    kind: Literal["gcp-pool"]
    settings: GcpPoolSettings


def token_problems(
    grant: GcpTokenGrant, settings: Mapping[str, Any], accounts: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Whether the connector may impersonate what the grant names, in each project of the template."""
    for project in accounts:
        email = f"{grant.service_account}@{project}.iam.gserviceaccount.com"
        if email not in settings["service_accounts"]:
            hint = "Add it there, with the broker's right to impersonate it, or take the project out of accounts."
            yield "service_account", f"{email} is not among the connector's service_accounts", hint


def pool_problems(
    grant: GcpPoolGrant, settings: Mapping[str, Any], accounts: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    """Whether the connector has the pool."""
    if grant.pool not in settings["pools"]:
        yield "pool", f"{grant.pool} is no pool of the connector", f"There is: {', '.join(sorted(settings['pools']))}."
