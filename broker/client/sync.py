"""The same SDK for scripts: ``with broker.client.sync.connect() as client:``.

Belongs here: one background thread with one event loop, and the bridge to it. No method is written
twice: each is the asynchronous one made to block, with its own signature and docstring.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from broker.client.client import AsyncClient
from broker.client.connect import connect as _connect
from broker.client.model import Completion, TaskFacts
from broker.client.task import Task as AsyncTask

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="broker.client.sync", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """The result of ``work``. Ctrl-C cancels it, and waits until it has tidied up."""
        result: concurrent.futures.Future[R] = concurrent.futures.Future()
        started: list[asyncio.Task[R]] = []
        self._loop.call_soon_threadsafe(lambda: started.append(_start(work, result)))
        try:
            return result.result()
        except BaseException:
            if not result.done():
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in started])
                concurrent.futures.wait([result])
            raise

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _start(work: Coroutine[Any, Any, R], result: concurrent.futures.Future[R]) -> asyncio.Task[R]:
    def settle(ended: asyncio.Task[R]) -> None:
        error = concurrent.futures.CancelledError() if ended.cancelled() else ended.exception()
        if error is None:
            result.set_result(ended.result())
        else:
            result.set_exception(error)

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(settle)
    return task


class Bridge(Generic[A]):
    """Something asynchronous, and the loop it lives in."""

    def __init__(self, loop: Loop, inner: A) -> None:
        self._loop = loop
        self._inner = inner


def blocking(method: Callable[Concatenate[A, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Bridge[A], P], R]:
    """``method``, waiting for its result."""

    @functools.wraps(method)
    def call(self: Bridge[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._loop.run(method(self._inner, *args, **kwargs))

    return call


def at_once(method: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[Bridge[A], P], R]:
    """``method``, which waits for nothing."""

    @functools.wraps(method)
    def call(self: Bridge[A], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self._inner, *args, **kwargs)

    return call


def iterating(
    method: Callable[Concatenate[A, P], AsyncGenerator[R, None]],
) -> Callable[Concatenate[Bridge[A], P], Iterator[R]]:
    """``method``, as an iterator that waits for each item."""

    @functools.wraps(method)
    def call(self: Bridge[A], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        items = method(self._inner, *args, **kwargs)

        async def following() -> R:
            return await anext(items)

        try:
            while True:
                yield self._loop.run(following())
        except StopAsyncIteration:
            return
        finally:
            self._loop.run(items.aclose())

    return call


def opening(
    method: Callable[Concatenate[AsyncClient, P], AsyncTask],
) -> Callable[Concatenate[Bridge[AsyncClient], P], Task]:
    """``method``, whose task is for a ``with`` block."""

    @functools.wraps(method)
    def call(self: Bridge[AsyncClient], /, *args: P.args, **kwargs: P.kwargs) -> Task:
        return Task(self._loop, method(self._inner, *args, **kwargs))

    return call


class Task(Bridge[AsyncTask]):
    """One task, open inside its ``with`` block; see :class:`broker.client.Task`."""

    request = blocking(AsyncTask.request)
    validate = blocking(AsyncTask.validate)
    made = at_once(AsyncTask.made)
    changed = at_once(AsyncTask.changed)
    register_plan = blocking(AsyncTask.register_plan)
    plans = blocking(AsyncTask.plans)
    delegations = blocking(AsyncTask.delegations)

    def __enter__(self) -> Self:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._inner.__aexit__(kind, error, trace))

    @property
    def id(self) -> str:
        """The id the broker gave it."""
        return self._inner.id

    @property
    def facts(self) -> TaskFacts:
        """The task as the broker told it when it was started."""
        return self._inner.facts

    @property
    def outcome(self) -> Completion | None:
        """What became of the leases; None inside the block."""
        return self._inner.outcome


class Client(Bridge[AsyncClient]):
    """A connection to the broker; see :class:`broker.client.AsyncClient`, whose methods these are."""

    whoami = blocking(AsyncClient.whoami)
    templates = blocking(AsyncClient.templates)
    task = opening(AsyncClient.task)
    start_task = blocking(AsyncClient.start_task)
    get_task = blocking(AsyncClient.get_task)
    complete_task = blocking(AsyncClient.complete_task)
    request = blocking(AsyncClient.request)
    validate = blocking(AsyncClient.validate)
    confirm = blocking(AsyncClient.confirm)
    access_request = blocking(AsyncClient.access_request)
    access_requests = blocking(AsyncClient.access_requests)
    watch_access_requests = iterating(AsyncClient.watch_access_requests)
    redeem = blocking(AsyncClient.redeem)
    withdraw = blocking(AsyncClient.withdraw)
    lease = blocking(AsyncClient.lease)
    leases = blocking(AsyncClient.leases)
    watch = iterating(AsyncClient.watch)
    revoke = blocking(AsyncClient.revoke)
    register_plan = blocking(AsyncClient.register_plan)
    validate_plan = blocking(AsyncClient.validate_plan)
    plan = blocking(AsyncClient.plan)
    plans = blocking(AsyncClient.plans)
    delegate = blocking(AsyncClient.delegate)
    revoke_delegation = blocking(AsyncClient.revoke_delegation)
    delegations = blocking(AsyncClient.delegations)

    def close(self) -> None:
        """Close the connection and end its thread. Nothing is revoked by it."""
        self._loop.run(self._inner.close())
        self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _in_thread(connecting: Callable[P, AsyncClient]) -> Callable[P, Client]:
    @functools.wraps(connecting)
    def call(*args: P.args, **kwargs: P.kwargs) -> Client:
        inner = connecting(*args, **kwargs)
        return Client(Loop(), inner)

    return call


connect = _in_thread(_connect)
