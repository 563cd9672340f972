"""A witness that is a bucket of S3, or of what speaks its protocol, with object lock.

One object per checkpoint, named by its time, so that what is newer than a moment is found by one listing. Each is
written once (``If-None-Match: *``) and locked until its retention ends: in mode COMPLIANCE nobody, the account's root
included, deletes or overwrites it before (Amazon S3 User Guide, "Locking objects with Object Lock").
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import boto3
import botocore.session
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from broker.audit import note as notes
from broker.config import S3Witness as Settings
from broker.errors import BrokerError
from broker.ports.trail import OutgoingCheckpoint
from broker.secret import Secret

T = TypeVar("T")

# What is no answer of S3's: botocore's parsers raise what they stumble over in well-formed XML of somebody else's, and
# its following of regions ends in RecursionError where every answer is a redirect, such as to a page to log in at.
_NONSENSE = (ResponseParserError, RecursionError, ValueError, LookupError, TypeError, AttributeError)


class S3Witness:
    """A :class:`broker.ports.trail.Witness`."""

    def __init__(self, settings: Settings, resolve: Callable[[str], Secret]) -> None:
        self._settings = settings
        self._resolve = resolve
        session = botocore.session.Session()
        session.set_config_variable("ignore_configured_endpoint_urls", True)
        seconds = settings.timeout.total_seconds()
        self._config = BotoConfig(
            connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1, "mode": "standard"}
        )
        self._session: Any = boto3.Session(botocore_session=session)

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Write one object, unless it is there already with the same content."""
        await self._told(partial(self._put, checkpoint))

    async def newest(self, after_ms: int) -> str | None:
        """The last one whose name is of later than ``after_ms``."""
        return await self._told(partial(self._newest, after_ms))

    async def close(self) -> None:
        """The SDK keeps nothing that needs it."""

    def _client(self) -> Any:
        """Made anew for each call: keys are by reference, and one call a minute is no load."""
        settings, keys = self._settings, {}
        if settings.access_key_id is not None and settings.secret_access_key is not None:
            keys = {
                "aws_access_key_id": self._resolve(settings.access_key_id).reveal(),
                "aws_secret_access_key": self._resolve(settings.secret_access_key).reveal(),
            }
        return self._session.client(
            "s3", region_name=settings.region, endpoint_url=settings.endpoint_url, config=self._config, **keys
        )

    def _put(self, checkpoint: OutgoingCheckpoint) -> None:
        settings, body, client = self._settings, checkpoint.note.encode(), self._client()
        key, at = self._key(checkpoint.at_ms), datetime.fromtimestamp(checkpoint.at_ms / 1000, UTC)
        try:
            answer = client.put_object(
                Bucket=settings.bucket,
                Key=key,
                Body=body,
                ContentType="text/plain; charset=utf-8",
                # A request that sets a lock must carry a checksum.
                ContentMD5=base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
                IfNoneMatch="*",
                ObjectLockMode=settings.mode,
                ObjectLockRetainUntilDate=at + settings.retention + timedelta(seconds=1),
            )
        except ClientError as failure:
            if _code(failure) not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            if self._get(client, key) != checkpoint.note:
                raise OSError(f"{settings.bucket} holds another object as {key}") from None
        else:
            _check(answer, "ETag")

    def _newest(self, after_ms: int) -> str | None:
        client, last = self._client(), None
        after = {"StartAfter": self._key(after_ms)} if after_ms >= 0 else {}
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=self._settings.bucket, Prefix=self._settings.prefix, **after
        )
        for page in pages:
            _check(page, "Name")
            for each in page.get("Contents", ()):
                last = str(each["Key"])
        return None if last is None else self._get(client, last)

    def _get(self, client: Any, key: str) -> str:
        body = client.get_object(Bucket=self._settings.bucket, Key=key)["Body"].read(notes.MOST_CHARACTERS + 1)
        return bytes(body).decode("utf-8", "replace")

    def _key(self, at_ms: int) -> str:
        return f"{self._settings.prefix}{at_ms:015d}.note"

    async def _told(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(call)
        except ClientError as failure:
            raise OSError(f"{self._settings.bucket} answered {_code(failure)}") from None
        except BotoCoreError as failure:
            raise OSError(f"the connection failed ({type(failure).__name__})") from None
        except _NONSENSE as failure:
            raise OSError(f"it answered something that is not S3's ({type(failure).__name__})") from None
        except BrokerError as failure:
            raise OSError(failure.message) from None


def _check(answer: Mapping[str, Any], member: str) -> None:
    """Raises OSError without what S3 always tells: any page in XML would pass for an empty list, or for a success."""
    if not answer.get(member):
        raise OSError(f"it answered something that is not S3's (no {member})")


def _code(failure: ClientError) -> str:
    return str(failure.response.get("Error", {}).get("Code", "?"))
