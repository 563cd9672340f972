"""Following the Workload API in a thread of its own, so that nobody who needs its answer ever waits for it.

Belongs here: the last good answer in memory, looking again, and asking again with growing pauses after
a failure. A failure changes nothing but ``error``: what was last said well stays.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from broker.errors import BrokerError, Reason, Unauthenticated

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# py-spiffe does not call back when it gives up on a source, so its state is looked at.
LOOK_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0


class Api(Protocol[T_co]):
    """What is followed: :class:`broker.workloadapi.source.WorkloadApi`, and its like for JWT bundles."""

    def current(self) -> T_co:
        """The last answer; blocks for a bounded time. Raises :class:`BrokerError`."""
        ...

    def subscribe(self, changed: Callable[[], None]) -> None:
        """``changed`` is called from any thread at each answer."""
        ...

    def close(self) -> None:
        """Let go of threads and connections."""
        ...


def pause(failures: int) -> float:
    """Seconds until the next look after this many failures in a row."""
    if failures == 0:
        return LOOK_SECONDS
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))


class Follower(Generic[T]):
    """The last good answer of ``api``. The constructor waits for the first one, and raises what it raises."""

    def __init__(self, api: Api[T]) -> None:
        self._api = api
        self._latest = api.current()
        self._error: BrokerError | None = None
        self._failures = 0
        self._wake = threading.Event()
        self._stopping = False
        self._changed: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="workload api", daemon=True)

    @property
    def latest(self) -> T:
        """The last good answer. Never waits."""
        return self._latest

    @property
    def error(self) -> BrokerError | None:
        """Why the last look failed; None while all is well."""
        return self._error

    def start(self, changed: Callable[[], None]) -> None:
        """Follow from now on; ``changed`` is called, from the thread here, after each answer that is new."""
        self._changed = changed
        self._api.subscribe(self._wake.set)
        self._thread.start()

    def close(self) -> None:
        """Stop following. Does not wait for a question that is under way."""
        self._stopping = True
        self._wake.set()
        if not self._thread.is_alive():
            self._api.close()

    def look(self) -> float:
        """Look once; how many seconds until it is time to look again."""
        try:
            update = self._api.current()
        except BrokerError as error:
            self._error = error
        except Exception as error:  # noqa: BLE001 - a thread that dies of a library's surprise would never renew again
            self._error = Unauthenticated(
                Reason.SVID_MISSING, f"The SPIFFE Workload API could not be asked: {type(error).__name__}."
            )
        else:
            self._error, self._failures = None, 0
            if update != self._latest:
                self._latest = update
                self._changed()
            return pause(0)
        self._failures += 1
        return pause(self._failures)

    def _run(self) -> None:
        seconds = LOOK_SECONDS
        while not self._stopping:
            self._wake.wait(seconds)
            self._wake.clear()
            if not self._stopping:
                seconds = self.look()
        self._api.close()
