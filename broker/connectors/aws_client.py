"""Clients of the AWS SDK, made for a broker: one try, short timeouts, keys by reference or by our own JWT-SVID."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import (
    CredentialProvider,
    CredentialResolver,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)

from broker.connectors.own_identity import OwnIdentity
from broker.errors import NotReady, Reason
from broker.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sts import STSClient

# Base sessions: as long as STS lets any role's be. The SDK makes a new one 15 minutes before it ends.
_BASE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The broker's own long-lived key, asked for anew at every signature."""

    access_key_id: Callable[[], Secret]
    secret_access_key: Callable[[], Secret]


@dataclass(frozen=True, slots=True)
class WebIdentity:
    """The broker's own JWT-SVID, exchanged for a session of ``role_arn``: no key is kept anywhere."""

    role_arn: str
    audience: str
    session_name: str
    own: OwnIdentity


Base = AwsKeys | WebIdentity | None


@dataclass(frozen=True, slots=True)
class Calls:
    """Where calls go, and how long they may take. ``timeout`` (seconds): for connecting, and for each read."""

    region: str
    timeout: float
    threads: int
    endpoint_url: str | None = None
    ca_file: str | None = None  # None: the SDK's own roots


def sts_client(
    region: str,
    base: Base,
    *,
    endpoint_url: str | None,
    timeout: float,
    threads: int,
    ca_file: str | None = None,
) -> STSClient:
    """STS of the region, asked with the broker's own credentials, by ``threads`` threads.

    ``timeout`` (seconds) is for connecting and for each read. Without ``base`` the SDK's default credential chain is
    asked. Endpoints named in the environment or in ``~/.aws/config`` are ignored: the connector's file is the only
    place that says where to go.
    """
    calls = Calls(region, timeout, threads, endpoint_url, ca_file)
    return _session(_provider(calls, base)).client("sts", **_options(calls))


def iam_client(calls: Calls, base: Base, sts: Calls, assume: Callable[[], Mapping[str, Any]] | None) -> IAMClient:
    """IAM, asked with the broker's own credentials, or with those of the session that ``assume`` makes.

    ``sts``: where a base session comes from. ``assume`` answers as AssumeRole does; IAM lets nobody change the roles of
    another account.
    """
    provider = _provider(sts, base) if assume is None else _Made("assumed", assume)
    return _session(provider).client("iam", **_options(calls))


def _options(calls: Calls, **signing: Any) -> dict[str, Any]:
    return {
        "region_name": calls.region,
        "endpoint_url": calls.endpoint_url,
        "verify": calls.ca_file,
        "config": Config(
            connect_timeout=calls.timeout,
            read_timeout=calls.timeout,
            # One try: after a retry nobody could tell what the first one did.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=calls.threads,
            **signing,
        ),
    }


def _session(provider: CredentialProvider | None) -> boto3.Session:
    session = botocore.session.Session()
    # The global endpoint's tokens do not work in regions that are not enabled by default.
    session.set_config_variable("sts_regional_endpoints", "regional")
    session.set_config_variable("ignore_configured_endpoint_urls", True)
    if provider is not None:
        session.register_component("credential_provider", CredentialResolver([provider]))
    return boto3.Session(botocore_session=session)


def _provider(calls: Calls, base: Base) -> CredentialProvider | None:
    match base:
        case AwsKeys():
            return _KeysProvider(base)
        case WebIdentity():
            return _Made("web-identity", lambda: _exchanged(calls, base))
        case _:
            return None


def _exchanged(calls: Calls, base: WebIdentity) -> Mapping[str, Any]:
    """A base session for our JWT-SVID. The call is not signed: the token is the proof."""
    token = base.own.own_token(base.audience).token
    sts: STSClient = _session(None).client("sts", **_options(calls, signature_version=UNSIGNED))
    try:
        return sts.assume_role_with_web_identity(
            RoleArn=base.role_arn,
            RoleSessionName=base.session_name,
            WebIdentityToken=token.reveal(),
            DurationSeconds=_BASE_SECONDS,
        )
    finally:
        sts.close()


class _Made(CredentialProvider):
    """Credentials of a session that is made when it is first needed, and again before it ends."""

    def __init__(self, how: Literal["web-identity", "assumed"], make: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__()
        self.METHOD = f"broker-{how}"
        self._make = make

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(refresh_using=self._metadata, method=self.METHOD)

    def _metadata(self) -> dict[str, str]:
        keys = self._make().get("Credentials")
        keys = keys if isinstance(keys, Mapping) else {}
        ends = keys.get("Expiration")
        texts = [keys.get(name) for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")]
        if not isinstance(ends, datetime) or not all(isinstance(text, str) and text for text in texts):
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, "STS said success, but the broker's own session is incomplete.")
        key, secret, token = (str(text) for text in texts)
        return {"access_key": key, "secret_key": secret, "token": token, "expiry_time": ends.isoformat()}


class _KeysProvider(CredentialProvider):
    """The broker's key by reference, as one of the SDK's credential providers."""

    METHOD = "broker-reference"

    def __init__(self, keys: AwsKeys) -> None:
        super().__init__()
        self._keys = keys

    def load(self) -> Credentials:
        return _ReferencedCredentials(self._keys)


class _ReferencedCredentials(Credentials):
    """Credentials that resolve their references whenever the SDK signs, so that a rotated key is used at once."""

    def __init__(self, keys: AwsKeys) -> None:
        super().__init__("by-reference", "by-reference", method=_KeysProvider.METHOD)
        self._keys = keys

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        return ReadOnlyCredentials(
            self._keys.access_key_id().reveal(), self._keys.secret_access_key().reveal(), None, None
        )
