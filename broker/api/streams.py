"""A stream outlives the moment in which its caller was let in, so the question is asked again while it lasts.

Belongs here: the asking, for every stream alike, also for one that has nothing to say. An SVID ends, a root
is taken out of a bundle, an agent is denied or leaves the registry: none of it makes a sound on an open stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# With the second in which bundles are looked at, a caller who is not welcome any more is gone within 2 s.
RECHECK_SECONDS = 1.0


async def rechecked(messages: AsyncIterator[T], check: Callable[[], object]) -> AsyncIterator[T]:
    """What ``messages`` yields, with a ``check`` before each, and each second while there is none.

    Raises what ``check`` raises; ``messages`` has then been closed, whatever it was waiting for.
    """
    try:
        while True:
            try:
                message = await while_welcome(anext(messages), check)
            except StopAsyncIteration:
                return
            yield message
    finally:
        if close := getattr(messages, "aclose", None):
            await close()


async def while_welcome(work: Awaitable[T], check: Callable[[], object]) -> T:
    """What ``work`` returns, unless ``check`` raises first, which it is asked to each second and at the end."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=RECHECK_SECONDS)
            check()
            if done:
                return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # looked at, so that nobody complains that it never was
