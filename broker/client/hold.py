"""Holding a task: as long as somebody listens to HoldTask, the task lives; a process that dies lets go.

The stream may break for a moment (a restart, a rotated SVID) as long as it is back within two thirds of the grace
time: the broker notes each third of it that the task is held, and says so. A broker that is not heard any more (its
machine is gone, or stands still) breaks nothing; so after half of the grace time another connection is made, which
comes to another replica where there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from google.protobuf.duration_pb2 import Duration

from broker.api.v1 import broker_service_pb2 as pb
from broker.client import read
from broker.client.calls import Calls
from broker.client.model import TaskFacts
from broker.client.streams import messages
from broker.errors import Reason, WrongState

# Added to the third of the grace time after which the broker says something, where half of it is not more: for what a
# commit and the way take. In seconds.
_LATE = 1.0


def silence(grace: float) -> float:
    """Seconds without a word from the broker after which a hold with this ``grace`` is opened on another connection."""
    return max(grace / 2, grace / 3 + _LATE)


class Hold:
    """One held task. Entering waits until the broker says that it is held, and raises what keeps it from being held.

    ``ended`` is set when the task has ended under us, or when we can hold it no more, so that it will; ``error``
    then says why, if the broker did not simply end the stream.
    """

    def __init__(
        self, calls: Calls, task_id: str, grace: Duration, fraction: Callable[[], float], request_id: str
    ) -> None:
        self._calls = calls
        self._request = pb.HoldTaskRequest(task_id=task_id, grace=grace, request_id=request_id)
        self._fraction = fraction
        self._holding: asyncio.Task[None] | None = None
        self._held: asyncio.Future[None] | None = None
        self.task: TaskFacts | None = None
        self.ended = asyncio.Event()
        self.error: Exception | None = None

    @property
    def lost(self) -> bool:
        """Whether what was held has ended under us, as far as we have heard."""
        if self._held is None or not self._held.done() or self._held.cancelled():
            return False
        return self._held.exception() is None and self.ended.is_set()

    async def __aenter__(self) -> Self:
        self._held = asyncio.get_running_loop().create_future()
        self._holding = asyncio.create_task(self._hold(), name="broker.client: hold a task")
        try:
            await self._held
        except BaseException:
            await self.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    async def release(self) -> None:
        """Let go: unless held again or completed, the task ends after its grace time."""
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.gather(self._holding, return_exceptions=True)

    async def _hold(self) -> None:
        try:
            patience = silence(self._request.grace.ToTimedelta().total_seconds())
            async for answer in messages(self._calls, "HoldTask", lambda: self._request, self._fraction, patience):
                self.task = read.read(TaskFacts, answer.task)
                if self.task.is_open:
                    self._settle(None)
        except Exception as error:  # noqa: BLE001 - a client that is closed, an answer that cannot be read: they wait for us
            self.error = error
        # Settles only if it was never held.
        self._settle(self.error or _ended_before(self._request.task_id))
        self.ended.set()

    def _settle(self, error: Exception | None) -> None:
        if self._held is None or self._held.done():
            return
        if error is None:
            self._held.set_result(None)
        else:
            self._held.set_exception(error)


def _ended_before(task_id: str) -> WrongState:
    return WrongState(
        Reason.TASK_ENDED, f"Task {task_id} has ended.", hint="Start a new task.", metadata={"taskId": task_id}
    )
