"""Latency of a PostgreSQL login: through the broker, and by the same upstream calls made directly.

One by one in turn, on the same OpenBao and PostgreSQL, so that both see the same machine. What is
made is ended after each measurement, outside of the time taken.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

import hvac

from broker.client import AsyncClient, connect
from broker.clock import SystemClock
from broker.deployfiles.load import load
from broker.dev.configuration import render
from broker.dev.deploy_copy import DeployCopy
from broker.dev.openbao import client_for
from broker.dev.openbao_database import BROKER_POLICY
from broker.dev.stack import DevFacts, DevStack
from broker.scope.request import AccessRequest
from broker.secret import Secret

TTL = timedelta(minutes=2)
ROLE = "orders-readonly"


@dataclass(frozen=True, slots=True)
class Logins:
    """Median latencies, in milliseconds."""

    broker_ms: float
    direct_ms: float
    bare_ms: float
    pairs: int


async def measure(directory: Path, pairs: int) -> Logins:
    """``pairs`` logins each way, after a tenth as many to warm up."""
    copy = DeployCopy(Path(__file__).parent.parent / "deploy" / "dev", directory / "deploy", load)
    copy.refresh()
    agents = [agent.spiffe_id for agent in load(copy.current).registry]
    stack = DevStack(directory / "state", copy.current, agents=agents, clock=SystemClock(), render_config=render)
    async with stack:
        facts = stack.facts()
        endpoint = next(where for who, where in facts.endpoints.items() if who.path == "/agent/analyst")
        client = connect(facts.api_address, facts.broker_dns_name, endpoint, trust_domain="", audience="")
        try:
            return await _in_turn(client, facts, _as_the_broker(facts, directory / "state"), pairs)
        finally:
            await client.close()


def _as_the_broker(facts: DevFacts, state: Path) -> hvac.Client:
    """A client that may do what the broker may do, which itself logs in and keeps no token."""
    keys = json.loads((state / "openbao" / "keys.json").read_text())
    root = client_for(facts.openbao.address, Secret(keys["root_token"]))
    made = root.auth.token.create_orphan(policies=[BROKER_POLICY], period="24h", no_default_policy=True)
    return client_for(facts.openbao.address, Secret(made["auth"]["client_token"]))


async def _in_turn(client: AsyncClient, facts: DevFacts, ours: hvac.Client, pairs: int) -> Logins:
    reader = client_for(facts.openbao.address, _reading_token(facts, ours))
    through: list[float] = []
    direct: list[float] = []
    bare: list[float] = []
    task = await client.start_task("to be measured")
    for number in range(-pairs // 10, pairs):
        took = await _through(client, task.id, number)
        other = await asyncio.to_thread(_direct, facts, ours)
        read = await asyncio.to_thread(_bare, facts, reader, ours)
        if number >= 0:
            through.append(took)
            direct.append(other)
            bare.append(read)
    await client.complete_task(task.id)
    return Logins(median(through) * 1000, median(direct) * 1000, median(bare) * 1000, pairs)


async def _through(client: AsyncClient, task: str, number: int) -> float:
    asked = AccessRequest(f"m{number}", ROLE, task, "dev", "dev", "orders", TTL, intent="to be measured")
    began = time.perf_counter()
    grant = await client.request(asked, confirm=False)
    took = time.perf_counter() - began
    await client.revoke(grant.lease.id, wait=timedelta(seconds=10))
    return took


def _create_token(facts: DevFacts, ours: hvac.Client, ttl: str) -> dict[str, str]:
    made: dict[str, str] = ours.auth.token.create(
        role_name=facts.openbao.token_role,
        policies=[facts.openbao.attempt_policy(ROLE)],
        ttl=ttl,
        explicit_max_ttl=ttl,
        renewable=False,
        no_default_policy=True,
        type="service",
        display_name="bench",
    )["auth"]
    return made


def _reading_token(facts: DevFacts, ours: hvac.Client) -> Secret:
    return Secret(_create_token(facts, ours, "1h")["client_token"])


def _direct(facts: DevFacts, ours: hvac.Client) -> float:
    """The connector's calls in its order: a token of its own, the login, the lease's end."""
    began = time.perf_counter()
    made = _create_token(facts, ours, f"{int(TTL.total_seconds())}s")
    theirs = hvac.Client(url=facts.openbao.address, token=made["client_token"], session=ours.session)
    lease = theirs.secrets.database.generate_credentials(ROLE, mount_point=facts.openbao.mount)["lease_id"]
    ours.sys.renew_lease(lease, increment=int(TTL.total_seconds()))
    took = time.perf_counter() - began
    _end(ours, lease)
    ours.auth.token.revoke_accessor(made["accessor"])
    return took


def _bare(facts: DevFacts, reader: hvac.Client, ours: hvac.Client) -> float:
    """One credentials read with a token that is there already, and none of the care."""
    began = time.perf_counter()
    lease = reader.secrets.database.generate_credentials(ROLE, mount_point=facts.openbao.mount)["lease_id"]
    took = time.perf_counter() - began
    _end(ours, lease)
    return took


def _end(ours: hvac.Client, lease: str) -> None:
    """Ended when this returns. hvac's own call only queues it, and the upstream would do it in the next one's time."""
    ours.adapter.put("/v1/sys/leases/revoke", json={"lease_id": lease, "sync": True})
