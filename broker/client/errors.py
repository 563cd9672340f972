"""From a gRPC status back to the types of ``broker/errors.py``.

Belongs here: the mirror of ``broker/api/errors.py``. The family is chosen by the *reason* where this
client knows it, else by the status code, so that a broker newer than its clients is still understood:
an unknown reason is kept as the text it is. Does not belong here: failures of the connection itself
(``explain.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, cast

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.errors import (
    ERROR_DOMAIN,
    BrokerError,
    Conflict,
    Defect,
    Denied,
    Exhausted,
    InvalidInput,
    NotFound,
    NotReady,
    Reason,
    Tampered,
    Unauthenticated,
    UpstreamExhausted,
    UpstreamFailed,
    WrongState,
)

# The one metadata key that is not a variable of the message.
HINT_KEY = "hint"

Family = type[BrokerError]

# What gRPC itself says to calls that are more than a server takes; anything else of that status is about a size.
_TOO_MANY = "Concurrent RPC limit exceeded"
# UpstreamFailed shares its status with NotReady, and its subclass with Exhausted: told from them by the reason.
_UPSTREAM: Final[Mapping[str, Family]] = MappingProxyType(
    {
        Reason.PREVIOUS_ATTEMPT_LIVE: UpstreamFailed,
        **{each: UpstreamFailed for each in Reason if each.startswith("UPSTREAM_")},
        Reason.UPSTREAM_POOL_EXHAUSTED: UpstreamExhausted,
    }
)

_BY_CODE: Final[Mapping[grpc.StatusCode, Family]] = MappingProxyType(
    {
        grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
        grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
        grpc.StatusCode.PERMISSION_DENIED: Denied,
        grpc.StatusCode.NOT_FOUND: NotFound,
        grpc.StatusCode.UNIMPLEMENTED: NotFound,
        grpc.StatusCode.ALREADY_EXISTS: Conflict,
        grpc.StatusCode.ABORTED: Conflict,
        grpc.StatusCode.FAILED_PRECONDITION: WrongState,
        grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
        grpc.StatusCode.UNAVAILABLE: NotReady,
        grpc.StatusCode.DEADLINE_EXCEEDED: NotReady,
        grpc.StatusCode.CANCELLED: NotReady,
        grpc.StatusCode.DATA_LOSS: Tampered,
        grpc.StatusCode.INTERNAL: Defect,
        grpc.StatusCode.UNKNOWN: Defect,
    }
)


def is_transport(failure: grpc.aio.AioRpcError) -> bool:
    """Whether no broker said anything: the connection failed, or time ran out."""
    lost = failure.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    return lost and error_info(failure) is None


def from_rpc_error(failure: grpc.aio.AioRpcError) -> BrokerError:
    """What the broker said, as the type it raised itself."""
    info = error_info(failure)
    if info is None:
        return _bare(failure)
    metadata = dict(info.metadata)
    hint = metadata.pop(HINT_KEY, "")
    # The status text is for people who see nothing else, and so repeats the hint.
    message = (failure.details() or "").removesuffix(hint).rstrip()
    family = _UPSTREAM.get(info.reason) or _BY_CODE.get(failure.code(), Defect)
    error = family(_reason(info.reason), message, hint=hint, metadata=metadata)
    error.retry_after = _retry_after(failure)
    return error


def error_info(failure: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    """The broker's ErrorInfo (AIP-193); None if the status has none of ours."""
    info = error_details_pb2.ErrorInfo()
    for detail in _details(failure):
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == ERROR_DOMAIN and info.reason:
            return info
    return None


def _retry_after(failure: grpc.aio.AioRpcError) -> float | None:
    retry = error_details_pb2.RetryInfo()
    for detail in _details(failure):
        if detail.Is(retry.DESCRIPTOR) and detail.Unpack(retry):
            return float(retry.retry_delay.ToTimedelta().total_seconds())
    return None


def _details(failure: grpc.aio.AioRpcError) -> list[Any]:
    try:
        status = rpc_status.from_call(failure)
    except ValueError:
        # The details contradict the status they came with: somebody between us and the broker made them up.
        return []
    return list(status.details) if status is not None else []


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        # Newer than this client. A member of a StrEnum is a text, so a text compares and prints alike.
        return cast(Reason, text)


def _bare(failure: grpc.aio.AioRpcError) -> BrokerError:
    """A status that gRPC itself made, on either side."""
    code, said = failure.code(), (failure.details() or "")[:300]
    metadata = {"grpcStatus": code.name}
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY in said:
        return Exhausted(
            Reason.TOO_MANY_CONCURRENT_REQUESTS,
            "The broker is serving as many calls as it may.",
            hint="Ask again in a moment.",
            metadata=metadata,
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return InvalidInput(
            Reason.MESSAGE_TOO_LARGE, f"A message or its metadata was too large: {said}.", metadata=metadata
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotFound(
            Reason.METHOD_NOT_FOUND,
            "The broker does not know this call.",
            hint="It is older than this client, or what answers at this address is no broker.",
            metadata=metadata,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return NotReady(
            Reason.CALL_TIMED_OUT,
            "The broker did not answer in time.",
            hint="Ask again with the same request id: what the lost answer granted is then replaced.",
            metadata=metadata,
        )
    family = _BY_CODE.get(code, Defect)
    reason = Reason.BROKER_UNREACHABLE if family is NotReady else Reason.INTERNAL
    return family(reason, f"The call ended with {code.name}: {said}.", metadata=metadata)
