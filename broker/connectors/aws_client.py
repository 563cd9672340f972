"""An STS client of the AWS SDK, made for a broker: one try, short timeouts, keys by reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, Credentials, ReadOnlyCredentials

from broker.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient


@dataclass(frozen=True, slots=True)
class AwsKeys:
    """The broker's own long-lived key, asked for anew at every signature."""

    access_key_id: Callable[[], Secret]
    secret_access_key: Callable[[], Secret]


def sts_client(
    region: str,
    keys: AwsKeys | None,
    *,
    endpoint_url: str | None,
    timeout: float,
    threads: int,
    ca_file: str | None = None,
) -> STSClient:
    """A client for ``threads`` threads; ``timeout`` (seconds) is for connecting and for each read.

    Without ``keys`` the SDK's default credential chain is asked. Endpoints named in the environment or
    in ``~/.aws/config`` are ignored: the connector's file is the only place that says where to go.
    """
    session = botocore.session.Session()
    # The global endpoint's tokens do not work in regions that are not enabled by default.
    session.set_config_variable("sts_regional_endpoints", "regional")
    session.set_config_variable("ignore_configured_endpoint_urls", True)
    if keys is not None:
        session.register_component("credential_provider", CredentialResolver([_KeysProvider(keys)]))
    return boto3.Session(botocore_session=session).client(
        "sts",
        region_name=region,
        endpoint_url=endpoint_url,
        verify=ca_file,
        config=Config(
            connect_timeout=timeout,
            read_timeout=timeout,
            # One try: after a retry nobody could tell what the first one did.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=threads,
        ),
    )


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
