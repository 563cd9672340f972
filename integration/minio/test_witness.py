"""A bucket of a real MinIO as a witness: its lock is enforced, and what comes again hides nothing.

With every fault at every call, as ``tests/failpoints`` tells it of the double.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from structlog.testing import capture_logs

from broker.config import S3Witness as Settings
from broker.dev.minio import ROOT_USER, MinioFacts
from broker.secret import Secret
from broker.witnesses.s3 import S3Witness
from tests.failpoints.errand import IMPATIENT
from tests.failpoints.points import Armed
from tests.failpoints.trying import broken_at, brought_to_its_point
from tests.failpoints.witness_kinds import S3Server
from tests.failpoints.witnessing import Witnesses
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
        assert refused.value.response["Error"]["Code"] == "AccessDenied"
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=bucket, Key=key, Body=b"another", IfNoneMatch="*")
    assert refused.value.response["Error"]["Code"] == "PreconditionFailed"
    with pytest.raises(OSError, match="another object"):
        await witness.add(outgoing(6, at_ms=_NOW_MS + 5))  # of another life of the ledger
    assert await witness.newest(-1) == _at(5).note


@pytest.fixture
def silence() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.mark.usefixtures("silence")
async def test_every_fault_at_every_call(tmp_path: Path, minio: MinioFacts) -> None:
    server = S3Server(minio.endpoint, ROOT_USER, minio.root_password.reveal())

    async def told(directory: Path, armed: Armed) -> Witnesses:
        def begin(again: Path, impatient: float) -> Any:
            return nullcontext(Witnesses(again, armed, impatient, kind="s3", s3=server))

        told: Witnesses = await brought_to_its_point(directory, armed, IMPATIENT, begin)
        return told

    assert await broken_at("witnesses-s3", tmp_path, told) == []
