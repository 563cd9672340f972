"""JWT bundles from a Workload API: as they were sent, asked for anew, and never believed for long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from spiffe._proto import workload_pb2, workload_pb2_grpc

from broker.errors import Unauthenticated
from broker.workloadapi.jwt_bundles import ASK_SECONDS, JwtBundlesApi
from tests.forge_jwt import ec_key, jwk


class Agent(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    def __init__(self) -> None:
        self.bundles: dict[str, bytes] = {}
        self.asked = 0

    def FetchJWTBundles(self, request: Any, context: Any) -> Iterator[Any]:
        self.asked += 1
        if not self.bundles:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no identity issued")
        yield workload_pb2.JWTBundlesResponse(bundles=self.bundles)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    servicer = Agent()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    workload_pb2_grpc.add_SpiffeWorkloadAPIServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{tmp_path}/agent.sock")
    server.start()
    yield servicer
    server.stop(None).wait()


class Moment:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_document_comes_as_it_was_sent_also_beside_one_that_nobody_can_read(agent: Agent, tmp_path: Path) -> None:
    good = json.dumps({"keys": [jwk(ec_key("a"), "a", use=None)]}).encode()
    agent.bundles = {"spiffe://own.example": good, "spiffe://partner.example": b"garbage", "Not A Domain": b"{}"}
    api = JwtBundlesApi(f"unix://{tmp_path}/agent.sock")
    assert api.current() == {"own.example": good, "partner.example": b"garbage", "Not A Domain": b"{}"}
    api.close()


def test_an_answer_is_used_for_two_seconds_and_then_asked_for_again(agent: Agent, tmp_path: Path) -> None:
    moment = Moment()
    agent.bundles = {"spiffe://own.example": b"1"}
    api = JwtBundlesApi(f"unix://{tmp_path}/agent.sock", monotonic=moment)
    assert api.current() == {"own.example": b"1"}
    agent.bundles = {"spiffe://own.example": b"2"}
    moment.now = ASK_SECONDS - 0.1
    assert api.current() == {"own.example": b"1"}
    assert agent.asked == 1
    moment.now = ASK_SECONDS
    assert api.current() == {"own.example": b"2"}
    api.close()


def test_a_refusal_is_told_each_time_and_the_next_answer_taken(agent: Agent, tmp_path: Path) -> None:
    api = JwtBundlesApi(f"unix://{tmp_path}/agent.sock")
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="no identity issued"):
            api.current()
    agent.bundles = {"spiffe://own.example": b"1"}
    assert api.current() == {"own.example": b"1"}
    api.close()
    assert api.current() == {"own.example": b"1"}
    api.close()


def test_where_there_is_no_workload_api_that_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unauthenticated, match=r"nobody\.sock"):
        JwtBundlesApi(f"unix://{tmp_path}/nobody.sock", timeout_seconds=0.5).current()
