"""How long one task waits for each of the tries that it makes one after the other: one timer for all of them.

``asyncio.timeout`` makes a timer and takes it back for every try, which costs more than a try whose upstream answers at
once. The timer here stays, and when it goes off it looks how long the try that is under way has been.
"""

from __future__ import annotations

import asyncio
from types import TracebackType


class Patience:
    """Of the task that makes it, which is not to be used any more after :meth:`close`.

    ``with``: one try, cancelled after ``seconds``; then it raises TimeoutError. Whoever else cancels the task is heard.
    """

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("patience is a task's")
        self._task = task
        self._loop = task.get_loop()
        self._seconds = seconds
        self._until: float | None = None  # of the try under way, by the loop's time
        self._timer: asyncio.TimerHandle | None = None
        self._cancelling = 0  # how often somebody else has asked
        self._over = False

    def __enter__(self) -> None:
        self._until = self._loop.time() + self._seconds
        self._cancelling = self._task.cancelling()
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._until = None
        if self._over:
            self._over = False
            # As asyncio.timeout has it: where somebody else wants the task to end, too, it ends.
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _look(self) -> None:
        self._timer = None
        if self._until is None:
            return  # the next try begins another one
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
        else:
            self._over = True
            self._task.cancel()

    def close(self) -> None:
        """There are no more tries."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
