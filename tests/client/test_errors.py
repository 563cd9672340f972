"""A refusal comes out of the client as it went into the broker."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from broker import errors
from broker.api.errors import STATUS, to_status
from broker.client.errors import error_info, from_rpc_error, is_transport
from broker.errors import BrokerError, NotReady, Reason, UpstreamFailed

ONE_REASON_EACH = {
    errors.Unauthenticated: Reason.SVID_IS_CA,
    errors.InvalidInput: Reason.TTL_TOO_LONG,
    errors.Denied: Reason.POLICY_DENIED,
    errors.NotFound: Reason.LEASE_NOT_FOUND,
    errors.Conflict: Reason.REQUEST_ID_REUSED,
    errors.WrongState: Reason.TASK_ENDED,
    errors.Exhausted: Reason.QUOTA_LIVE_LEASES,
    errors.UpstreamExhausted: Reason.UPSTREAM_POOL_EXHAUSTED,
    errors.UpstreamFailed: Reason.UPSTREAM_REFUSED,
    errors.NotReady: Reason.SHUTTING_DOWN,
    errors.Tampered: Reason.ROW_MAC_MISMATCH,
    errors.Defect: Reason.INTERNAL,
}


def failure(status: object) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(status.code, None, grpc.aio.Metadata(*status.trailing_metadata), details=status.details)  # type: ignore[attr-defined]


def bare(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="gRPC said so")


def test_the_table_below_is_complete() -> None:
    assert set(ONE_REASON_EACH) == set(STATUS)


@pytest.mark.parametrize(
    ("family", "reason"), ONE_REASON_EACH.items(), ids=lambda each: getattr(each, "__name__", each)
)
def test_every_family_survives_the_wire(family: type[BrokerError], reason: Reason) -> None:
    sent = family(reason, "It was wrong.", hint="Do it right.", metadata={"leaseId": "lease-1"})
    got = from_rpc_error(failure(to_status(sent)))
    assert type(got) is family
    assert (got.reason, got.message, got.hint, got.metadata) == (
        reason,
        "It was wrong.",
        "Do it right.",
        {"leaseId": "lease-1"},
    )


@pytest.mark.parametrize("reason", [each for each in Reason if each.startswith("UPSTREAM_")])
def test_every_upstream_reason_is_told_from_not_ready(reason: Reason) -> None:
    got = from_rpc_error(failure(to_status(UpstreamFailed(reason, "It did not work."))))
    assert isinstance(got, UpstreamFailed)
    assert not got.outcome_known


def test_a_reason_of_a_newer_broker_is_kept_as_text() -> None:
    got = from_rpc_error(
        _with(grpc.StatusCode.PERMISSION_DENIED, error_details_pb2.ErrorInfo(reason="TOO_LATE", domain="broker.jit"))
    )
    assert isinstance(got, errors.Denied)
    assert (got.reason, f"{got.reason}") == ("TOO_LATE", "TOO_LATE")


def test_another_domains_reasons_are_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="POLICY_DENIED", domain="elsewhere.example")
    assert error_info(_with(grpc.StatusCode.PERMISSION_DENIED, info)) is None


def test_the_upstreams_retry_after_is_read() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(2500)
    info = error_details_pb2.ErrorInfo(reason="UPSTREAM_UNAVAILABLE", domain="broker.jit")
    got = from_rpc_error(_with(grpc.StatusCode.UNAVAILABLE, info, retry))
    assert isinstance(got, UpstreamFailed)
    assert got.retry_after == 2.5


def test_only_silence_is_a_failure_of_the_transport() -> None:
    assert is_transport(bare(grpc.StatusCode.UNAVAILABLE))
    assert is_transport(bare(grpc.StatusCode.DEADLINE_EXCEEDED))
    assert not is_transport(bare(grpc.StatusCode.PERMISSION_DENIED))
    assert not is_transport(failure(to_status(NotReady(Reason.SHUTTING_DOWN, "Bye."))))


@pytest.mark.parametrize(
    ("code", "family", "reason"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.InvalidInput, Reason.MESSAGE_TOO_LARGE),
        (grpc.StatusCode.UNIMPLEMENTED, errors.NotFound, Reason.METHOD_NOT_FOUND),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.NotReady, Reason.CALL_TIMED_OUT),
        (grpc.StatusCode.CANCELLED, errors.NotReady, Reason.BROKER_UNREACHABLE),
        (grpc.StatusCode.INTERNAL, errors.Defect, Reason.INTERNAL),
    ],
)
def test_what_grpc_itself_says_has_a_type_too(code: grpc.StatusCode, family: type[BrokerError], reason: Reason) -> None:
    got = from_rpc_error(bare(code))
    assert type(got) is family
    assert (got.reason, got.metadata["grpcStatus"]) == (reason, code.name)


def test_details_that_contradict_their_status_are_not_believed() -> None:
    honest = failure(to_status(errors.Denied(Reason.POLICY_DENIED, "No.")))
    forged = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), honest.trailing_metadata(), details="something else"
    )
    assert error_info(forged) is None


def _with(code: grpc.StatusCode, *details: object) -> grpc.aio.AioRpcError:
    status = status_pb2.Status(code=code.value[0], message="text")
    for each in details:
        packed = any_pb2.Any()
        packed.Pack(each)  # type: ignore[arg-type]
        status.details.append(packed)
    return failure(rpc_status.to_status(status))
