"""The contracts of three connectors as their canaries measure them; the pages in docs/connectors tell the figures.

    .venv/bin/python -m pytest -s integration/test_canaries.py

prints them. Real parts on loopback: OpenBao, PostgreSQL, brokerd, and MinIO where it is built.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.api.v1 import canaries_pb2 as pb
from broker.cli.demo.world import World
from broker.dev.files import write_private
from broker.dev.minio import built
from integration.stacks import stack_world
from tests.connectors.harness_postgresql import DATABASE, PASSWORD, ROOT, create_shop
from tests.dev.watched import passable_directory
from tests.patience import PATIENCE

RUNS = 5
TRIES = 10
KINDS = {"revoke": pb.CANARY_KIND_ON_REVOKE, "expiry": pb.CANARY_KIND_ON_EXPIRY}
CONNECTORS = ("openbao-orders", "shop", *(() if built() is None else ("minio",)))
Measurement = pb.CanaryMeasurement
TEMPLATE: dict[str, Any] = {
    "name": "shop-read",
    "description": "Reads the orders of the shop, without Vault.",
    "connector": "shop",
    "accounts": ["dev"],
    "environments": ["dev"],
    "resource": {"type": "enum", "values": ["orders"]},
    "access": "read",
    "sensitivity": "internal",
    "blast_radius": "service",
    "reversibility": "reversible",
    "change_type": "none",
    "actions": ["select"],
    "max_ttl": "15m",
    "requires": ["intent"],
    "grant": {"grants": [{"in_schema": "public", "tables": ["orders"], "privileges": ["select"]}]},
}
POLICY = """
@id("canaries-read-the-shop")
@reason("The broker reads the shop's orders, to measure how fast such a login ends.")
permit (principal, action == Action::"read", resource)
when { principal.entry == "broker.canary" && resource.template == "shop-read" };
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with passable_directory() as place:
        yield place


def with_a_shop(deploy: Path) -> None:
    """A connector that makes logins by itself, in the PostgreSQL that is there anyway, and its canary."""
    password, connectors = deploy.parent.parent / "shop.password", deploy / "connectors.yaml"
    write_private(password, PASSWORD.reveal())
    said = yaml.safe_load(connectors.read_text())
    of_openbao = said["connectors"]["openbao-orders"]
    said["connectors"]["shop"] = {
        "kind": "postgresql",
        "settings": {
            "login": {**of_openbao["settings"]["login"], "database": DATABASE},
            "username": ROOT,
            "password": f"file:{password}",
            "tls": False,
            "login_prefix": "shop-",
        },
        "canary": {**of_openbao["canary"], "template": TEMPLATE["name"]},
    }
    del said["connectors"]["shop"]["settings"]["login"]["engine"]
    write_private(connectors, yaml.safe_dump(said))
    write_private(deploy / "templates" / "shop-read.yaml", yaml.safe_dump(TEMPLATE))
    write_private(deploy / "policies" / "shop.cedar", POLICY)


async def test_every_bound_is_kept(directory: Path) -> None:
    async with stack_world(directory / "stack", built(), with_a_shop) as world:
        await asyncio.to_thread(create_shop, world.facts.postgres)
        for name in CONNECTORS:
            for word, kind in KINDS.items():
                found = [await measured(world, name, kind) for _ in range(RUNS)]
                print(f"{name:15} {word}  {told(found)}")
                assert [each.outcome for each in found] == [Measurement.OUTCOME_WITHIN] * RUNS, found
                # Nor did one die before its time.
                assert all(each.measured.ToTimedelta() >= timedelta(0) for each in found)


async def measured(world: World, name: str, kind: pb.CanaryKind) -> pb.CanaryMeasurement:
    """One run, to its end; where a machine that stood still kept it from telling, another. One that is LATE is."""
    sam = world.person("sam")
    for _ in range(TRIES):
        asked = pb.RunCanaryRequest(request_id=sam.new_id(), connector=name, kind=kind)
        asked.wait.FromSeconds(20)
        async with asyncio.timeout(5 * PATIENCE):
            while not (answer := await sam.call("RunCanary", asked)).HasField("measurement"):
                continue
        measurement: pb.CanaryMeasurement = answer.measurement
        if measurement.outcome != Measurement.OUTCOME_UNMEASURED:
            break
    return measurement


def told(found: list[pb.CanaryMeasurement]) -> str:
    """The figures in milliseconds, the least first."""
    figures = sorted(each.measured.ToTimedelta() / timedelta(milliseconds=1) for each in found)
    bound = found[0].bound.ToTimedelta().total_seconds()
    return f"at most {', '.join(f'{each:.0f}' for each in figures)} ms; promised {bound:g} s"
