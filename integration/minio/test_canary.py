"""The canary of ``deploy/dev``, on a real MinIO: the contract's two bounds as measured, and one that is not kept.

``-s`` shows the figures, which docs/connectors/minio-sts.md tells.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from broker.api.v1 import canaries_pb2 as pb
from broker.api.v1 import connectors_pb2
from broker.dev.files import write_private
from broker.dev.minio import MinioFacts
from integration.stacks import stack_world
from integration.test_canaries import measured

MINIO = "minio"
REVOKE, EXPIRY = pb.CANARY_KIND_ON_REVOKE, pb.CANARY_KIND_ON_EXPIRY
Measurement = pb.CanaryMeasurement


@pytest.mark.parametrize("kind", [REVOKE, EXPIRY], ids=pb.CanaryKind.Name)
async def test_the_contract_is_kept_as_measured(binary: Path, directory: Path, kind: pb.CanaryKind) -> None:
    async with stack_world(directory / "canary", binary) as world:
        found = await measured(world, MINIO, kind)
        assert found.outcome == Measurement.OUTCOME_WITHIN, found
        span, bound = found.measured.ToTimedelta(), found.bound.ToTimedelta()
        print(f"{MINIO}: refused at most {span / timedelta(milliseconds=1):.0f} ms after {pb.CanaryKind.Name(kind)}")
        # Not early either: what was asked for was had.
        assert timedelta(0) <= span <= bound
        asked = connectors_pb2.GetConnectorRequest(name=MINIO)
        contract = (await world.person("sam").call("GetConnector", asked)).contract
        shown = contract.measured_on_revoke if kind == REVOKE else contract.measured_on_expiry
        assert shown == found.measured


async def test_a_node_that_is_not_told_is_found_out(directory: Path, cluster: tuple[MinioFacts, MinioFacts]) -> None:
    """Agents use one node, and revocations reach the other alone: the ledger says REVOKED, and the session works."""
    told, used = cluster

    def split(deploy: Path) -> None:
        secret, path = deploy.parent.parent / "cluster.secret", deploy / "connectors.yaml"
        write_private(secret, used.broker_secret.reveal())
        said = yaml.safe_load(path.read_text())
        said["connectors"][MINIO]["canary"]["ttl"] = "12s"  # well after the bound
        said["connectors"][MINIO]["settings"] |= {
            "endpoint_url": used.endpoint,
            "nodes": [told.endpoint],
            "secret_key": f"file:{secret}",
        }
        write_private(path, yaml.safe_dump(said))

    async with stack_world(directory / "split", None, split) as world:
        found = await measured(world, MINIO, REVOKE)
        # Its own deadline ended it, seconds after the bound.
        assert found.outcome == Measurement.OUTCOME_LATE, found
        assert found.HasField("confirm_time")
        assert found.at_least.ToTimedelta() > found.bound.ToTimedelta()
