"""Everything from a Workload API: the broker's SVID and both kinds of bundles, the agent's SVID and its tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.client import connect
from broker.clock import SystemClock
from broker.dev.loopback import free_port
from broker.dev.trust_domain import TrustDomain
from broker.dev.workload_api import WorkloadApiSockets
from broker.errors import BrokerError
from broker.identity.spiffe_id import SpiffeId
from tests.api.ending_proxy import ending_proxy
from tests.api.proxied import AUDIENCE, EAST
from tests.api.served import ANALYST, DOMAIN, serve
from tests.forge import Forged

BROKER = SpiffeId.parse(AUDIENCE)
AGENT = SpiffeId.parse(ANALYST)


async def test_an_agent_behind_a_proxy_without_a_single_file(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    domain = TrustDomain.load(DOMAIN, tmp_path / "trust", now)
    names = {BROKER: ["localhost"]}
    sockets = WorkloadApiSockets(domain, [BROKER, AGENT], tmp_path / "sockets", SystemClock(), dns_names=names)
    await sockets.start()
    made = domain.x509_svid(SpiffeId.parse(EAST), now=now, ttl=timedelta(hours=1), dns_names=["localhost"])
    roots = domain.bundle_pem
    settings = {
        "listen": {name: f"127.0.0.1:{free_port()}" for name in ("agents", "operations", "proxies")},
        "identity": {"workload_api": sockets.endpoint(BROKER)},
        "proxies": {"allow": [EAST], "audience": AUDIENCE},
    }
    try:
        async with (
            serve(tmp_path, **settings) as served,
            ending_proxy(served, Forged(made.certificate, made.key), roots) as proxy,
        ):
            mine = f"127.0.0.1:{proxy.port}", "localhost", sockets.endpoint(AGENT)
            async with connect(*mine, audience=AUDIENCE) as client:
                assert (await client.whoami()).delivery == "proxy"
                async with client.task("through a proxy", hold=True) as task:
                    grant = await task.request(
                        "orders-readonly", account="dev", environment="dev", resource="orders", ttl="1m", intent="look"
                    )
                    password = grant.database.password.reveal().encode()
            assert proxy.seen
            assert all(password not in data for data in proxy.seen)
            # The same token again and again, as the Workload API gave it.
            assert len(set(proxy.tokens)) == 1
            async with connect(*mine, audience="somebody else") as client:
                with pytest.raises(BrokerError) as refused:
                    await client.whoami()
                assert refused.value.reason == "JWT_SVID_AUDIENCE"
    finally:
        await sockets.destroy()
