"""How a server's stream is kept up: opened again when it breaks, and moved when the SVID rotates.

Belongs here: what HoldTask and WatchLeases have in common. A stream has no natural end, so each
connection's age, each restart of the broker and each new SVID ends one; that is no failure. Does not
belong here: what the messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from broker.client.calls import ELSEWHERE, Calls
from broker.client.channel import Generation
from broker.client.tokens import bearer
from broker.errors import BrokerError, NotReady, Reason, Unauthenticated

# Waits before a broken stream is opened again, in seconds: doubled from the first to the last, spread
# over [half, one and a half), for as long as the caller wants the stream. The first is short, because a
# held task ends when its stream has been gone for the grace time, a second at least.
FIRST_WAIT = 0.1
LAST_WAIT = 5.0


def wait_before(attempt: int, fraction: float) -> float:
    """Seconds to wait before the ``attempt``-th opening in a row (1, 2, ...) that brought no message."""
    doubled: float = FIRST_WAIT * 2.0 ** min(attempt - 1, 16)
    return min(doubled, LAST_WAIT) * (0.5 + fraction)


class _Silent(Exception):
    """No message came for as long as one is waited for."""


async def messages(
    calls: Calls,
    rpc: str,
    request: Callable[[], Message],
    fraction: Callable[[], float],
    silence: float | None = None,
) -> AsyncGenerator[Any, None]:
    """The messages of ``rpc``, over as many streams as it takes; ends when the server ends it.

    ``request`` is asked anew for each stream, so that it can resume. After ``silence`` (seconds) without a message the
    next one is opened on another connection; None: a connection that died is noticed by its keepalive. Raises
    :class:`BrokerError` for what trying again cannot mend.
    """
    attempt = 0
    while True:
        async with calls.connection.use() as generation:
            try:
                async with contextlib.aclosing(_one(calls, generation, rpc, request(), silence)) as stream:
                    async for message in stream:
                        attempt = 0
                        yield message
                if not generation.retired.is_set():
                    return
                continue
            except _Silent:
                await calls.connection.anew(generation)
                continue
            except BrokerError as error:
                if not _passes(error, generation, calls, attempt) and not await _renewed(error, generation, calls):
                    raise
                if error.reason in ELSEWHERE:
                    await calls.connection.anew(generation)
        attempt += 1
        await asyncio.sleep(wait_before(attempt, fraction()))


async def _one(
    calls: Calls, generation: Generation, rpc: str, request: Message, silence: float | None
) -> AsyncGenerator[Any, None]:
    """One stream; ends quietly when its channel is retired. Raises _Silent."""
    call = getattr(generation.stub, rpc)(request, metadata=await bearer(calls.connection.tokens))
    retired = asyncio.ensure_future(generation.retired.wait())
    try:
        while True:
            reading = asyncio.ensure_future(call.read())
            try:
                await asyncio.wait({reading, retired}, timeout=silence, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
            if reading.cancelled():
                if retired.done():
                    return
                raise _Silent
            message = reading.result()
            if message is grpc.aio.EOF:
                return
            yield message
    except grpc.aio.AioRpcError as failure:
        raise await calls.error_of(failure, generation) from None
    finally:
        retired.cancel()
        call.cancel()


async def _renewed(error: BrokerError, generation: Generation, calls: Calls) -> bool:
    """Whether it was our SVID that was refused, and a newer one is there."""
    return isinstance(error, Unauthenticated) and await calls.connection.renewed(generation) is not generation


def _passes(error: BrokerError, generation: Generation, calls: Calls, attempt: int) -> bool:
    """Whether another try may succeed: the broker is away, or a fresher SVID is there to come back with."""
    if error.reason is Reason.SVID_EXPIRED:
        return generation.retired.is_set() or generation.material.valid_at(calls.connection.now())
    if error.reason is Reason.JWT_SVID_EXPIRED:
        # A token ends the stream it opened; the next one comes with the next token. Twice in a row: there is none.
        return calls.connection.tokens is not None and attempt == 0
    if error.reason is Reason.TOO_MANY_CONCURRENT_REQUESTS:
        return True  # as where everybody comes at once from a replica that died: others' calls end
    return isinstance(error, NotReady) and error.reason is not Reason.STREAM_TOO_OLD
