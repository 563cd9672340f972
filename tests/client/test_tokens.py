"""The agent's JWT-SVIDs for a proxy: from a file, and from a Workload API that answers as SPIRE's does."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from broker.client.connect import token_source
from broker.client.tokens import HeldToken, TokenFile, bearer, no_admin_token
from broker.client.workload_api import WorkloadApiTokens
from broker.errors import BrokerError, Reason, Unauthenticated
from broker.secret import Secret
from tests.clock import ManualClock
from tests.forge_jwt import token_authority

AGENT, AUDIENCE = "spiffe://example.org/agent/one", "spiffe://example.org/broker"


class Authority(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Issues a new token at each question, for five minutes from ``clock``'s time."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.asked: list[tuple[str, ...]] = []
        self.refuses = False

    def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        assert ("workload.spiffe.io", "true") in [tuple(pair) for pair in context.invocation_metadata()]
        self.asked.append(tuple(request.audience))
        if self.refuses:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        text = token_authority("example.org", at=self.clock.now()).token(AGENT, AUDIENCE, jti=str(len(self.asked)))
        return workload_pb2.JWTSVIDResponse(svids=[workload_pb2.JWTSVID(spiffe_id=AGENT, svid=text)])


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


def tokens(authority: Authority, tmp_path: Path) -> WorkloadApiTokens:
    return WorkloadApiTokens(f"unix://{tmp_path}/agent.sock", AUDIENCE, authority.clock.now)


def test_a_token_is_used_again_until_half_of_its_life_is_over(authority: Authority, tmp_path: Path) -> None:
    source = tokens(authority, tmp_path)
    first = source.token()
    authority.clock.advance(timedelta(seconds=149))
    assert source.token() == first
    assert authority.asked == [(AUDIENCE,)]
    authority.clock.advance(timedelta(seconds=2))
    assert source.token() != first
    assert len(authority.asked) == 2
    source.close()
    assert source.token() != first
    source.close()


def test_an_authority_that_refuses_is_quoted_and_asked_again(authority: Authority, tmp_path: Path) -> None:
    source = tokens(authority, tmp_path)
    authority.refuses = True
    with pytest.raises(BrokerError, match="no identity issued") as refused:
        source.token()
    assert refused.value.reason == "JWT_SVID_MISSING"
    authority.refuses = False
    assert source.token()
    source.close()


def test_where_there_is_no_workload_api_that_is_what_is_said(tmp_path: Path) -> None:
    clock = ManualClock()
    source = WorkloadApiTokens(f"unix://{tmp_path}/nobody.sock", AUDIENCE, clock.now, timeout_seconds=0.5)
    with pytest.raises(BrokerError) as refused:
        source.token()
    assert refused.value.reason == "JWT_SVID_MISSING"
    source.close()


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"a.b.c\n", "a.b.c"), (b"  a.b.c", "a.b.c"), (b"", None), (b" \n", None), (b"\xff", None), (b"x" * 8193, None)],
)
def test_a_file_holds_one_token_or_none(tmp_path: Path, content: bytes, expected: str | None) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    if expected is None:
        with pytest.raises(BrokerError) as refused:
            TokenFile(path).token()
        assert refused.value.reason == "JWT_SVID_MISSING"
        assert "xxxx" not in str(refused.value)
    else:
        assert TokenFile(path).token() == expected


async def test_a_token_goes_with_each_call_and_that_there_is_none_is_told(tmp_path: Path) -> None:
    assert await bearer(None) == ()
    with pytest.raises(BrokerError) as refused:
        await bearer(TokenFile(tmp_path / "nothing"))
    assert refused.value.reason == "JWT_SVID_MISSING"
    (tmp_path / "nothing").write_text("a.b.c")
    assert await bearer(TokenFile(tmp_path / "nothing")) == (("authorization", "Bearer a.b.c"),)


def test_what_decides_whether_a_proxy_is_in_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    now = ManualClock().now
    assert token_source("", None, None, now) is None
    assert isinstance(token_source("", None, tmp_path / "token", now), TokenFile)
    assert isinstance(token_source(AUDIENCE, "unix:///run/agent.sock", None, now), WorkloadApiTokens)
    with pytest.raises(BrokerError) as refused:
        token_source(AUDIENCE, None, None, now)
    assert refused.value.reason == "JWT_SVID_MISSING"


def test_automations_token_at_the_peoples_door(tmp_path: Path) -> None:
    """An ID token may be larger than a JWT-SVID; what is missing is told in the words of that door."""
    path = tmp_path / "token"
    source = TokenFile(path, no_admin_token, 12 * 1024)
    with pytest.raises(Unauthenticated) as caught:
        source.token()
    assert (caught.value.reason, "BROKER_ADMIN_TOKEN_FILE" in caught.value.hint) == (Reason.ID_TOKEN_MISSING, True)
    path.write_text("x" * (12 * 1024 + 1) + "\n")
    with pytest.raises(Unauthenticated):
        source.token()
    path.write_text("x" * 12 * 1024 + "\n")
    assert len(source.token()) == 12 * 1024


async def test_a_token_that_is_held() -> None:
    source = HeldToken(Secret("t0ken"))
    assert await bearer(source) == (("authorization", "Bearer t0ken"),)
    source.close()
    assert "t0ken" not in repr(source)
