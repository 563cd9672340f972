"""Whether S3 takes an AWS session: list at most one key of a bucket that operators named for it.

A call that a Deny really refuses, and that touches nothing. sts:GetCallerIdentity would be no test: it answers whatever
is denied (AWS STS API reference).
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from broker.connectors.unknown_use import cannot_tell
from broker.lease.credential import AwsAccessKey, AwsSession, Credential
from broker.ports.connectors import Use

if TYPE_CHECKING:
    from collections.abc import Mapping

# What S3 answers to a session that is denied, over, or not known (S3 API reference, error responses). Another 4xx, as
# NoSuchBucket or SlowDown, says nothing about the session. InvalidTokenId is MinIO's.
_REFUSALS = frozenset(
    {"AccessDenied", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "InvalidTokenId"}
)

_MAKING = threading.Lock()  # a session makes one client at a time (boto3's guide, sessions)


def list_bucket(
    connector: str,
    credential: Credential,
    bucket: str | None,
    *,
    endpoint_url: str | None,
    timeout: float,
    ca_file: str | None = None,
) -> Use:
    """Blocks; ``timeout`` (seconds) is for connecting and for each read.

    Raises UpstreamFailed (CREDENTIAL_USE_UNKNOWN).
    """
    if not isinstance(credential, AwsSession | AwsAccessKey):
        raise cannot_tell(connector, f"a {type(credential).__name__} is none of AWS")
    if bucket is None:
        raise cannot_tell(connector, "its settings name no canary_bucket, and nothing else shows that a Deny holds")
    client = _s3(credential, endpoint_url, timeout, ca_file)
    try:
        client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as refusal:
        code = _code(refusal.response)
        if code in _REFUSALS:
            return Use.REFUSED
        what = f"S3 answered {code}" if code.isalnum() else "S3 answered an unknown error"
    # RecursionError: botocore's following of regions, where every answer is a redirect.
    except (BotoCoreError, ResponseParserError, RecursionError, OSError, ValueError) as failure:
        what = f"no usable answer ({type(failure).__name__})"
    else:
        return Use.WORKS
    finally:
        client.close()
    raise cannot_tell(connector, what)


def _s3(credential: AwsSession | AwsAccessKey, endpoint_url: str | None, timeout: float, ca_file: str | None) -> Any:
    """A client with these keys alone; endpoints named in the environment are ignored."""
    with _MAKING:
        return _session().client(
            "s3",
            region_name=credential.region,
            endpoint_url=endpoint_url,
            verify=ca_file,
            aws_access_key_id=credential.access_key_id,
            aws_secret_access_key=credential.secret_access_key.reveal(),
            aws_session_token=credential.session_token.reveal() if isinstance(credential, AwsSession) else None,
            config=Config(
                connect_timeout=timeout,
                read_timeout=timeout,
                retries={"total_max_attempts": 1, "mode": "standard"},
                # An endpoint of one's own knows no bucket in its name.
                s3={"addressing_style": "auto" if endpoint_url is None else "path"},
            ),
        )


@cache
def _session() -> boto3.Session:
    """Kept for what it has read: S3's description takes longer to read than S3 to answer, and would be measured too."""
    session = botocore.session.Session()
    session.set_config_variable("ignore_configured_endpoint_urls", True)
    return boto3.Session(botocore_session=session)


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))
