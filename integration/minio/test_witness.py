"""A bucket of a real MinIO as a witness: its lock is enforced, and what comes again hides nothing.

Every fault at every call is told of the double (``tests/failpoints``).
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from broker.config import S3Witness as Settings
from broker.dev.minio import ROOT_USER, MinioFacts
from broker.secret import Secret
from broker.witnesses.s3 import S3Witness
from tests.witnesses.fake import outgoing

# Now, so that the lock lasts.
_NOW_MS = 1_900_000_000_000


@pytest.fixture
def bucket(minio: MinioFacts) -> str:
    name = f"witness-{uuid.uuid4().hex}"
    minio.client().create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


@pytest.fixture
def witness(minio: MinioFacts, bucket: str) -> S3Witness:
    settings: Any = Settings.model_validate(
        {
            "bucket": bucket,
            "prefix": "audit/",
            "endpoint_url": minio.endpoint,
            "access_key_id": "env:ID",
            "secret_access_key": "env:SECRET",
            "timeout": "30s",
        },
        context={"base": Path("/")},
    )
    of = {"env:ID": Secret(ROOT_USER), "env:SECRET": minio.root_password}
    return S3Witness(settings, lambda reference: of[reference])


def _at(number: int) -> Any:
    return outgoing(number, at_ms=_NOW_MS + number)


async def test_the_newest_is_the_latest_though_earlier_ones_came_again(witness: S3Witness) -> None:
    """F35"""
    assert await witness.newest(-1) is None
    for number in (5, 6, 7, 9, 5, 6, 7):
        await witness.add(_at(number))
    assert await witness.newest(_NOW_MS + 7) == _at(9).note
    assert await witness.newest(_NOW_MS + 9) is None


async def test_what_is_kept_is_kept_from_its_own_administrator(
    witness: S3Witness, minio: MinioFacts, bucket: str
) -> None:
    await witness.add(_at(5))
    client, key = minio.client(), f"audit/{_NOW_MS + 5:015d}.note"
    (version,) = client.list_object_versions(Bucket=bucket)["Versions"]
    for gone in ({}, {"BypassGovernanceRetention": True}):
        with pytest.raises(ClientError) as refused:
            client.delete_object(Bucket=bucket, Key=key, VersionId=version["VersionId"], **gone)
        assert refused.value.response["Error"]["Code"] in ("AccessDenied", "InvalidRequest")  # AWS's word, and MinIO's
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key=key, Body=b"another", IfNoneMatch="*")
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    with pytest.raises(OSError, match="another object"):
        await witness.add(outgoing(6, at_ms=_NOW_MS + 5))  # of another life of the ledger
    assert await witness.newest(-1) == _at(5).note
