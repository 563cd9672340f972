"""How the store reads, beside the writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from broker.stores.view import View

T = TypeVar("T")


class Reading(Protocol):
    """Views that cannot write, and see every commit that was answered before they were asked for."""

    async def point(self, read: Callable[[View], T]) -> T:
        """What ``read`` finds, by keys; its statements may see different moments.

        Raises NotReady (STORE_UNAVAILABLE, SHUTTING_DOWN).
        """
        ...

    async def scan(self, read: Callable[[View], T]) -> T:
        """What ``read`` finds, in one snapshot. Raises NotReady (STORE_UNAVAILABLE, SHUTTING_DOWN)."""
        ...

    async def walk(self, read: Callable[[View], T]) -> T:
        """The same for what goes through all that lives, and takes as long as there is of it.

        Walks wait for each other, and nobody who scans waits for them.
        """
        ...

    async def close(self) -> None:
        """Let running reads end, then close. Later ones are refused."""
        ...
