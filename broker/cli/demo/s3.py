"""Step: a session of a real S3, MinIO: held to its policy, revoked with its task, and dead at its deadline alone.

Where MinIO is not built, moto plays AWS instead (``aws.py``), and it is said how to get it.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from broker.cli.demo.aws import aws_session
from broker.cli.demo.database import seconds_until
from broker.cli.demo.narrator import failed
from broker.cli.demo.world import READ_S3, World
from broker.client import Grant
from broker.dev.minio import NOT_BUILT, REPORTS, MinioFacts
from broker.lease.credential import AwsSession

_TTL = timedelta(seconds=5)
_LATE = timedelta(seconds=1)
_DAY = READ_S3.parameters["day"]
_REPORT = f"{_DAY}/orders.csv"
_OTHER_DAY = next(key for key in REPORTS if not key.startswith(_DAY))
# What S3 says to a session that is denied, and to one that is not there any more.
DENIED, GONE = "AccessDenied", "InvalidAccessKeyId"


async def s3_session(world: World) -> None:
    """On MinIO, or where that is not built on moto, which says what it does not prove."""
    if world.facts.minio is None:
        world.tell.told(NOT_BUILT)
        await aws_session(world)
        return
    await ends_with_its_task(world, world.facts.minio)
    await dies_without_the_broker(world, world.facts.minio)


async def ends_with_its_task(world: World, minio: MinioFacts) -> None:
    """It does what its policy says, and nothing after its task was completed."""
    tell, reporter = world.tell, world.agent("reporter")
    async with reporter.task("sum up the day", wait=timedelta(seconds=10)) as task:
        grant = await world.ask(reporter, READ_S3, task.id)
        used = S3(minio, grant.aws)
        tell.checked(await used.get(_REPORT) == REPORTS[_REPORT], f"MinIO gives it {_REPORT}.")
        answers = {
            "another day": await used.get(_OTHER_DAY),
            "writing": await used.put(_REPORT),
            "listing": await used.list_all(),
        }
        tell.checked(
            set(answers.values()) == {DENIED},
            "MinIO itself refuses it another day, writing and listing, all of which the broker's own user may.",
            f"MinIO answered {answers}.",
        )
    if task.outcome is None:
        failed("the task was not completed.")
    (lease,) = task.outcome.leases
    answer = await used.get(_REPORT)
    tell.checked(
        (lease.state, answer) == ("REVOKED", GONE),
        "The task is completed: the lease is REVOKED, and MinIO does not know the session any more.",
        f"the lease is {lease.state}, and MinIO answers {answer!r}.",
    )


async def dies_without_the_broker(world: World, minio: MinioFacts) -> None:
    """A TTL of 5 s, where MinIO grants 900 s at least, and brokerd killed right after issuing."""
    tell, reporter = world.tell, world.agent("reporter")
    task = await reporter.start_task("ask, and see the broker die")
    asked = time.perf_counter()
    grant = await world.ask(reporter, READ_S3, task.id, _TTL)
    await world.kill_brokerd()
    used, ends = S3(minio, grant.aws), _end_of(grant)
    tell.checked(
        await used.get(_REPORT) == REPORTS[_REPORT] and world.clock.now() < ends,
        f"The agent asked for {_TTL.total_seconds():g} s; brokerd is killed with -9 after"
        f" {time.perf_counter() - asked:.1f} s. The session works.",
    )

    async def is_denied() -> bool:
        return await used.get(_REPORT) == DENIED

    left = (ends + _LATE - world.clock.now()).total_seconds()
    await seconds_until(is_denied, left, "MinIO denies a session whose time is over")
    late = (world.clock.now() - ends).total_seconds()
    tell.checked(
        late >= 0,
        f"{time.perf_counter() - asked:.1f} s after it was asked for MinIO refuses it. brokerd was dead all the while.",
        f"MinIO refused it {-late:.1f} s before its deadline.",
    )
    await world.start_brokerd()
    await world.agent("reporter").complete_task(task.id)


class S3:
    """What an agent does with a session. Each call tells the content, or the code of S3's refusal."""

    def __init__(self, minio: MinioFacts, session: AwsSession) -> None:
        if session.endpoint_url != minio.endpoint:
            failed("the session does not say where it is good.")
        self._client = minio.client(session.access_key_id, session.secret_access_key, session.session_token)
        self._bucket = READ_S3.resource

    async def get(self, key: str) -> bytes | str:
        """The object."""
        return await asyncio.to_thread(_answer, partial(self._read, key))

    async def put(self, key: str) -> bytes | str:
        """Overwrite the object."""
        return await asyncio.to_thread(
            _answer, partial(self._client.put_object, Bucket=self._bucket, Key=key, Body=b"overwritten")
        )

    async def list_all(self) -> bytes | str:
        """List the bucket."""
        return await asyncio.to_thread(_answer, partial(self._client.list_objects_v2, Bucket=self._bucket))

    def _read(self, key: str) -> bytes:
        body: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return body


def _answer(call: Any) -> Any:
    try:
        return call()
    except ClientError as refused:
        return str(refused.response["Error"]["Code"])


def _end_of(grant: Grant) -> datetime:
    return grant.lease.expire_time or failed("the lease does not say when it ends.")
