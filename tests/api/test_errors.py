"""Every family has a status, every reason is well formed, and exactly one ErrorInfo goes out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from broker import errors
from broker.api.errors import STATUS, status_code, to_status, unexpected
from broker.errors import BrokerError, Denied, Reason, UpstreamFailed


def families(cls: type[BrokerError] = BrokerError) -> Iterator[type[BrokerError]]:
    for child in cls.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
        yield from families(child)


def test_every_family_has_a_status_of_its_own_row() -> None:
    assert set(families()) == set(STATUS)


def test_no_failure_is_told_as_success() -> None:
    assert grpc.StatusCode.OK not in STATUS.values()


@pytest.mark.parametrize("reason", list(Reason))
def test_reasons_follow_aip_193(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", reason)


def details(error: BrokerError) -> status_pb2.Status:
    metadata = dict(to_status(error).trailing_metadata)
    return status_pb2.Status.FromString(metadata["grpc-status-details-bin"])


def test_one_error_info_with_reason_domain_metadata_and_hint() -> None:
    status = details(Denied(Reason.POLICY_DENIED, "no.", hint="ask less.", metadata={"policies": "p1"}))
    info = error_details_pb2.ErrorInfo()
    assert len(status.details) == 1
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("POLICY_DENIED", "broker.jit")
    assert dict(info.metadata) == {"policies": "p1", "hint": "ask less."}
    assert status.message == "no."


def test_an_upstreams_retry_after_becomes_retry_info() -> None:
    status = details(UpstreamFailed(Reason.UPSTREAM_UNAVAILABLE, "busy.", retry_after=7.5))
    retry = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 7500


def test_a_subclass_inherits_its_familys_status() -> None:
    class Special(Denied):
        """A family of tomorrow."""

    assert status_code(Special(Reason.POLICY_DENIED, "x")) is grpc.StatusCode.PERMISSION_DENIED


def test_a_bug_is_told_by_a_fixed_text() -> None:
    told = unexpected("id-1")
    assert told.reason is Reason.INTERNAL
    assert told.metadata == {"requestId": "id-1"}
