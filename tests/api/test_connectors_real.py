"""What brokerd says of its real upstreams when it is asked: one that is sound, one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.api.v1 import connectors_pb2 as pb
from tests.api.real_upstreams import real, set_environment
from tests.api.served import people_changes, person, serve
from tests.conftest import ConfiguredOpenBao


async def test_brokerd_examines_its_upstreams(
    tmp_path: Path, openbao_server: ConfiguredOpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(openbao_server, monkeypatch)
    async with serve(tmp_path, build=real, **people_changes(tmp_path)) as served:
        stub = person(served, "dana")
        aws, minio, openbao = (await stub.ExamineConnector(pb.ExamineConnectorRequest())).examinations
        assert [each.severity for each in aws.doubts] == [pb.Doubt.SEVERITY_ERROR]
        assert "could not ask who it is" in aws.doubts[0].what
        assert [each.severity for each in minio.doubts] == [pb.Doubt.SEVERITY_ERROR]
        assert (openbao.connector.name, list(openbao.doubts)) == ("openbao-orders", [])
        root = openbao_server.root_client()
        root.write_data("auth/token/roles/jit-attempt", data={"orphan": False})
        try:
            asked = pb.ExamineConnectorRequest(name="openbao-orders")
            (openbao,) = (await stub.ExamineConnector(asked)).examinations
        finally:
            root.write_data("auth/token/roles/jit-attempt", data={"orphan": True})
        (doubt,) = openbao.doubts
        assert doubt.severity == pb.Doubt.SEVERITY_ERROR
        assert "orphan is not true" in doubt.what
        looks = [each["data"]["about"] for each in await served.audit() if each["type"] == "admin.read"]
        assert looks == [{}, {"name": "openbao-orders"}]
