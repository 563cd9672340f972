"""One failure, one status: the table from the error families to gRPC, and back onto the wire (AIP-193)."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from broker import errors

STATUS: Final = MappingProxyType(
    {
        errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        errors.Denied: grpc.StatusCode.PERMISSION_DENIED,
        errors.NotFound: grpc.StatusCode.NOT_FOUND,
        errors.Conflict: grpc.StatusCode.ALREADY_EXISTS,
        errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
        errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.UpstreamExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.UpstreamFailed: grpc.StatusCode.UNAVAILABLE,
        errors.NotReady: grpc.StatusCode.UNAVAILABLE,
        errors.Tampered: grpc.StatusCode.DATA_LOSS,
        errors.Defect: grpc.StatusCode.INTERNAL,
    }
)


def status_code(error: errors.BrokerError) -> grpc.StatusCode:
    """The status of the nearest family in the table (subclasses inherit their family's)."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]  # type: ignore[index]
    return grpc.StatusCode.INTERNAL


def to_status(error: errors.BrokerError) -> Any:
    """The whole status: message, exactly one ErrorInfo (the hint is its ``hint`` metadatum), perhaps a RetryInfo."""
    metadata = {key: value[:1000] for key, value in error.metadata.items()}
    if error.hint:
        metadata["hint"] = error.hint
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.ERROR_DOMAIN, metadata=metadata)
    ]
    if error.retry_after is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_after * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    code = code_pb2.Code.Value(status_code(error).name)
    return rpc_status.to_status(
        status_pb2.Status(code=code, message=error.message[:2000], details=[_packed(detail) for detail in details])
    )


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def unexpected(request_id: str) -> errors.Defect:
    """What a caller hears of a bug: a fixed text and the id under which the log has the rest."""
    return errors.Defect(
        errors.Reason.INTERNAL,
        "an internal error; nothing was delivered.",
        hint=f"Tell an operator the request id {request_id}.",
        metadata={"requestId": request_id},
    )
