"""brokerd with its proxies' listener on, over real mTLS, and what a proxy sends there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from broker.dev.loopback import free_port
from tests.api.served import ANALYST, CA, DOMAIN, Served, private, serve, svid
from tests.forge import Forged, authority
from tests.hostile_jwts import World

FEDERATED = "partner.example"
PARTNER_CA = authority(FEDERATED, at=CA.at)
AUDIENCE = f"spiffe://{DOMAIN}/broker"
EAST, WEST = (f"spiffe://{DOMAIN}/proxy/{name}" for name in ("east", "west"))


def world(agent: str = ANALYST) -> World:
    """The authorities, at this moment."""
    return World.of(DOMAIN, FEDERATED, AUDIENCE, agent, datetime.now(UTC))


def token(agent: str = ANALYST, **defects: Any) -> str:
    return world(agent).token(**defects)


@asynccontextmanager
async def serve_proxied(root: Path, *, allow: Sequence[str] = (EAST, WEST), **changes: Any) -> AsyncIterator[Served]:
    private(root / "identity" / "partner.pem", PARTNER_CA.pem)
    here = world()
    private(root / "identity" / "own.json", here.own.bundle())
    private(root / "identity" / "partner.json", here.federated.bundle())
    addresses = {name: f"127.0.0.1:{free_port()}" for name in ("agents", "operations", "proxies")}
    settings = {
        "listen": addresses,
        "identity": {
            "certificate": "identity/broker.pem",
            "private_key": "identity/broker.key",
            "bundles": {DOMAIN: "identity/bundle.pem", FEDERATED: "identity/partner.pem"},
            "federates_with": [FEDERATED],
        },
        "proxies": {
            "allow": list(allow),
            "audience": AUDIENCE,
            "jwt_bundles": {DOMAIN: "identity/own.json", FEDERATED: "identity/partner.json"},
        },
        **changes,
    }
    async with serve(root, **settings) as served:
        yield served


def through(served: Served, proxy: Forged | str = EAST) -> BrokerServiceStub:
    """The broker as ``proxy`` reaches it. Each call needs ``metadata=bearer(...)``."""
    return BrokerServiceStub(proxy_channel(served, proxy))


def proxy_channel(served: Served, proxy: Forged | str = EAST, roots: bytes = CA.pem) -> grpc.aio.Channel:
    made = svid(proxy) if isinstance(proxy, str) else proxy
    credentials = grpc.ssl_channel_credentials(roots, made.key_pem, made.pem + made.chain_pem)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    channel = grpc.aio.secure_channel(f"127.0.0.1:{served.daemon.doors.proxies_port}", credentials, options=options)
    served.channels.append(channel)
    return channel


def bearer(text: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {text}"),)
