"""One credential under one task for as long as the task lasts: kept, given out again, asked for anew before it ends.

For programs that ask for their credential over and over, as AWS SDKs do in the last quarter of an hour of a session:
each is answered from here, and the broker sees one request in a lifetime. When the task has ended it says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from broker.client.client import AsyncClient
from broker.client.model import Grant
from broker.errors import BrokerError, NotReady, Reason, UpstreamFailed, WrongState

# Together less than 2 s, after which whoever asks gives up (botocore, ContainerMetadataFetcher).
_LOOK_SECONDS, _ANSWER_SECONDS = 0.6, 1.1
# Asked for anew when this much of its life is left, or the fraction of it.
_MARGIN, _MARGIN_FRACTION = timedelta(seconds=60), 4


class TaskCredential:
    """``ask`` asks the broker for one more under the task, with a request id of its own. Belongs to one event loop."""

    def __init__(
        self, client: AsyncClient, task_id: str, ask: Callable[[], Awaitable[Grant]], now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._task_id = task_id
        self._ask = ask
        self._now = now
        self._grant: Grant | None = None
        self._asking: asyncio.Task[Grant] | None = None
        self._turn = asyncio.Lock()
        self.lease_ids: list[str] = []  # of all that were asked for

    async def current(self) -> Grant:
        """The credential, for at least a moment yet.

        Raises WrongState (TASK_ENDED) when the task has ended, NotReady while a new one is being asked for, and what
        the broker refuses with.
        """
        async with self._turn:
            await self._look()
            if self._grant is None or self._is_late(self._grant):
                await self._renew()
            if self._grant is None:
                raise NotReady(
                    Reason.UPSTREAM_UNAVAILABLE,
                    f"the credential of task {self._task_id} is still being asked for.",
                    hint="Ask again in a moment.",
                )
            return self._grant

    async def first(self) -> Grant:
        """The first one, however long it takes; call it before anything that is in a hurry."""
        async with self._turn:
            self._grant = self._kept(await self._ask())
            return self._grant

    async def close(self) -> None:
        """Ask no more. Nothing is revoked by it: see ``lease_ids``."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _look(self) -> None:
        """Let go of what has ended. A broker that does not answer in time ends nothing."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                if self._grant is not None and await self._lives(self._grant):
                    return
                task = await self._client.get_task(self._task_id)
        except (NotReady, UpstreamFailed, TimeoutError):
            if self._grant is not None and self._ends(self._grant) <= self._now():
                self._grant = None
            return
        self._grant = None
        if not task.is_open:
            raise task_ended(self._task_id)

    async def _lives(self, grant: Grant) -> bool:
        if self._ends(grant) <= self._now():
            return False
        return (await self._client.lease(grant.lease.id)).state == "ACTIVE"

    async def _renew(self) -> None:
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._asked())
        done, _ = await asyncio.wait({self._asking}, timeout=_ANSWER_SECONDS)
        if not done:
            return
        asked, self._asking = self._asking, None
        try:
            self._grant = asked.result()
        except BrokerError as error:
            if error.reason is Reason.TASK_ENDED:
                self._grant = None
                raise task_ended(self._task_id) from error
            if self._grant is None:
                raise

    async def _asked(self) -> Grant:
        return self._kept(await self._ask())

    def _kept(self, grant: Grant) -> Grant:
        self.lease_ids.append(grant.lease.id)
        return grant

    def _is_late(self, grant: Grant) -> bool:
        made, ends = grant.lease.create_time, self._ends(grant)
        margin = _MARGIN if made is None else min(_MARGIN, (ends - made) / _MARGIN_FRACTION)
        return ends - margin <= self._now()

    def _ends(self, grant: Grant) -> datetime:
        ends = grant.lease.expire_time
        # A lease that does not tell its end is as good as over.
        return self._now() if ends is None else ends


def task_ended(task_id: str) -> WrongState:
    """What is told to whoever asks for a credential of a task that is over."""
    return WrongState(
        Reason.TASK_ENDED,
        f"task ended: {task_id} is over, and its credentials with it.",
        hint="Start a new task.",
        metadata={"taskId": task_id},
    )
