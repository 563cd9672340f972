"""Following leases and access requests by sequence number, so that a broken stream loses nothing and a gap is noticed.

Belongs here: what the numbers mean. Sequence numbers are shared with other holders, so they jump;
each event therefore names the one before it that was ours. If that one was not seen, something is
missing: the stream is opened once more from the last one seen, and if the gap is still there, the
events are gone and the caller is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

from google.protobuf.message import Message

from broker.api.v1 import access_request_pb2 as requests_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.client import read
from broker.client.calls import Calls
from broker.client.model import AccessRequestEvent, LeaseEvent
from broker.client.streams import messages
from broker.errors import NotReady, Reason

FROM_NOW_ON = -1

E = TypeVar("E", LeaseEvent, AccessRequestEvent)


def watch(calls: Calls, after_sequence: int, fraction: Callable[[], float]) -> AsyncGenerator[LeaseEvent, None]:
    """Our leases' events after ``after_sequence``, each once, in order; heartbeats are kept to ourselves."""
    return _events(calls, "WatchLeases", pb.WatchLeasesRequest, LeaseEvent, after_sequence, fraction)


def watch_requests(
    calls: Calls, after_sequence: int, fraction: Callable[[], float]
) -> AsyncGenerator[AccessRequestEvent, None]:
    """The same of our access requests."""
    asking = requests_pb.WatchAccessRequestsRequest
    return _events(calls, "WatchAccessRequests", asking, AccessRequestEvent, after_sequence, fraction)


async def _events(
    calls: Calls,
    rpc: str,
    request: Callable[..., Message],
    kind: type[E],
    after_sequence: int,
    fraction: Callable[[], float],
) -> AsyncGenerator[E, None]:
    last = after_sequence
    missed_at: int | None = None

    def resume() -> Message:
        return request(after_sequence=last)

    while True:
        stream = messages(calls, rpc, resume, fraction)
        async with contextlib.aclosing(stream):
            async for message in stream:
                event = read.read(kind, message)
                if not event.type:
                    # A heartbeat tells where "now" was, to somebody who has seen nothing yet.
                    last = event.sequence if last == FROM_NOW_ON else last
                    continue
                if event.sequence <= last:
                    continue
                # Ours before this one; at or before the last one seen, nothing of ours lies between.
                if last != FROM_NOW_ON and event.previous_sequence > last:
                    if missed_at == last:
                        raise _gap(last, event)
                    missed_at = last
                    break
                last = event.sequence
                yield event
            else:
                return


def _gap(last: int, event: LeaseEvent | AccessRequestEvent) -> NotReady:
    return NotReady(
        Reason.STREAM_TOO_OLD,
        f"The broker has no events between {last} and {event.sequence} any more.",
        hint="List them to see how they are, then watch from now on.",
        metadata={"lastSequence": str(last), "sequence": str(event.sequence)},
    )
