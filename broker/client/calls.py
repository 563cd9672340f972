"""How one unary call is made: with a deadline, a size limit, and retries where they are safe.

Belongs here: everything that is the same for every RPC. A call is retried only when it ended
UNAVAILABLE, and always as the very same message: each RPC of the service is idempotent, the ones that
make something by their ``request_id`` (AIP-155), the others by what they ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from broker.client.channel import Connection, Generation
from broker.client.errors import error_info, from_rpc_error, is_transport
from broker.client.explain import explain
from broker.client.tokens import bearer
from broker.errors import BrokerError, InvalidInput, Reason, Unauthenticated

MAX_REQUEST_BYTES = 64 * 1024
# The deadline of a call that waits for nothing but the broker.
READ_SECONDS = 10.0

# Waits before the second, third and fourth try, in seconds, each spread over [half, one and a half).
RETRY_WAITS = (0.1, 0.3, 0.9)
# Of several brokers the one that we are connected to can only refuse, and its connection is sound: others are tried.
ELSEWHERE = frozenset({Reason.DEPLOY_SET_OVERTAKEN, Reason.REPLICA_UNHEARD})


class Calls:
    """Unary calls on a :class:`Connection`."""

    def __init__(self, connection: Connection, fraction: Callable[[], float]) -> None:
        self.connection = connection
        self._fraction = fraction

    async def unary(self, rpc: str, request: Message, seconds: float) -> Any:
        """The answer to ``request``, within ``seconds``, tries and waits included.

        Raises :class:`BrokerError`: the broker's own refusal, or an explanation of why no answer came.
        """
        refuse_too_large(request)
        deadline = asyncio.get_running_loop().time() + seconds
        for wait in (*RETRY_WAITS, None):
            async with self.connection.use() as generation:
                try:
                    metadata = await bearer(self.connection.tokens)
                    remaining = deadline - asyncio.get_running_loop().time()
                    call = getattr(generation.stub, rpc)
                    return await call(request, timeout=max(remaining, 0.001), metadata=metadata)
                except (grpc.aio.AioRpcError, Unauthenticated) as error:
                    failure = error
            if wait is not None and await self._refused_as_older(failure, generation):
                continue
            if wait is None or not _passing(failure):
                break
            pause = wait * (0.5 + self._fraction())
            if asyncio.get_running_loop().time() + pause >= deadline:
                break
            if _reason(failure) in ELSEWHERE:
                await self.connection.anew(generation)
            await asyncio.sleep(pause)
        raise failure if isinstance(failure, Unauthenticated) else await self.error_of(failure, generation)

    async def _refused_as_older(self, failure: Exception, generation: Generation) -> bool:
        """Whether it was our SVID that was refused, and a newer one is there: the call has had no effect."""
        if not isinstance(failure, grpc.aio.AioRpcError) or failure.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return False
        return await self.connection.renewed(generation) is not generation

    async def error_of(self, failure: grpc.aio.AioRpcError, generation: Generation) -> BrokerError:
        """What to tell the caller about ``failure``."""
        if is_transport(failure) and not (timed_out(failure) and generation.connected):
            now = self.connection.now()
            renewal = self.connection.renewal_error
            return await explain(self.connection.target, generation.material, now, failure, renewal)
        return from_rpc_error(failure)


def _passing(failure: grpc.aio.AioRpcError | Unauthenticated) -> bool:
    """Whether another try may go through: the broker is away for a moment, or whoever gives us tokens is."""
    return isinstance(failure, Unauthenticated) or failure.code() is grpc.StatusCode.UNAVAILABLE


def _reason(failure: grpc.aio.AioRpcError | Unauthenticated) -> str:
    """Why the broker refuses; empty where no broker said so."""
    info = error_info(failure) if isinstance(failure, grpc.aio.AioRpcError) else None
    return "" if info is None else info.reason


def timed_out(failure: grpc.aio.AioRpcError) -> bool:
    """Whether time ran out, here or there."""
    return failure.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def refuse_too_large(request: Message) -> None:
    """The broker refuses more before reading it, and then cannot say so in words; so it is said here."""
    size = request.ByteSize()
    if size > MAX_REQUEST_BYTES:
        raise InvalidInput(
            Reason.MESSAGE_TOO_LARGE,
            f"The request has {size} bytes; at most {MAX_REQUEST_BYTES} are accepted.",
            hint="Shorten prompt, tool_call and plan; only their digests are kept anyway.",
            metadata={"bytes": str(size), "maximumBytes": str(MAX_REQUEST_BYTES)},
        )
