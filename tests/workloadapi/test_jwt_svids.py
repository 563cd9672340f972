"""The broker's own JWT-SVIDs: one for each audience, renewed at half of their life, and never made up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from broker.connectors.own_identity import NoOwnToken
from broker.daemon.own_tokens import OwnTokens
from broker.errors import BrokerError, NotReady, Reason, Unauthenticated
from broker.workloadapi.jwt_svids import JwtSvids
from tests.clock import ManualClock
from tests.forge_jwt import token_authority

OWN = "spiffe://example.org/broker"


class Authority(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Issues a new token at each question, for five minutes from ``clock``'s time."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, str]] = []
        self.refuses = False
        self.says: str | None = None

    def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        (audience,) = request.audience
        self.asked.append((audience, request.spiffe_id))
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        made = token_authority("example.org", at=self.clock.now()).token(OWN, audience, jti=str(len(self.asked)))
        text = made if self.says is None else self.says
        return workload_pb2.JWTSVIDResponse(svids=[workload_pb2.JWTSVID(spiffe_id=OWN, svid=text)])


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    # py-spiffe looks at the real clock for an expiry, so this one begins there.
    servicer = Authority(ManualClock(datetime.now(UTC)))
    server = grpc.server(futures.ThreadPoolExecutor(2))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/agent.sock")
    server.start()
    yield servicer
    server.stop(None).wait()


@pytest.fixture
def svids(authority: Authority, tmp_path: Path) -> Iterator[JwtSvids]:
    made = JwtSvids(f"unix://{tmp_path}/agent.sock", authority.clock.now)
    yield made
    made.close()


def test_each_audience_has_a_token_of_its_own_renewed_at_half_of_its_life(
    authority: Authority, svids: JwtSvids
) -> None:
    own = OwnTokens(svids)
    first = own.own_token("sts.amazonaws.com")
    other = own.own_token("https://vault.example.org")
    assert first.token != other.token
    assert first.expires_at - authority.clock.now() <= timedelta(minutes=5)
    authority.clock.advance(timedelta(seconds=140))
    assert own.own_token("sts.amazonaws.com") == first
    authority.clock.advance(timedelta(seconds=12))
    again = own.own_token("sts.amazonaws.com")
    assert again.token != first.token
    assert [audience for audience, _ in authority.asked] == [
        "sts.amazonaws.com",
        "https://vault.example.org",
        "sts.amazonaws.com",
    ]


def test_the_identity_that_the_configuration_names_is_asked_for(authority: Authority, tmp_path: Path) -> None:
    made = JwtSvids(f"unix://{tmp_path}/agent.sock", authority.clock.now, spiffe_id=OWN)
    made.token("a")
    made.close()
    assert authority.asked == [("a", OWN)]


def test_a_refusal_is_quoted_and_nothing_old_is_given_in_its_place(authority: Authority, svids: JwtSvids) -> None:
    svids.token("a")
    authority.refuses = True
    authority.clock.advance(timedelta(seconds=160))
    with pytest.raises(Unauthenticated, match="no identity issued") as refused:
        svids.token("a")
    assert refused.value.reason is Reason.JWT_SVID_MISSING
    authority.refuses = False
    assert svids.token("a").expires_at > authority.clock.now()


@pytest.mark.parametrize("said", ["", "a.b.c", "no token"])
def test_what_is_no_token_is_not_used(authority: Authority, svids: JwtSvids, said: str) -> None:
    authority.says = said
    with pytest.raises(BrokerError) as refused:
        svids.token("a")
    assert refused.value.reason is Reason.JWT_SVID_MISSING


def test_an_identity_from_files_says_that_it_has_no_token() -> None:
    with pytest.raises(NotReady, match="from files") as refused:
        NoOwnToken().own_token("a")
    assert refused.value.reason is Reason.JWT_SVID_MISSING
