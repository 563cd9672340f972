"""The corpus of hostile ID tokens at the people's real door: each is refused by name, and leaves an audit event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from broker.api.v1 import admin_service_pb2 as pb
from broker.clock import SystemClock
from broker.dev.loopback import free_port
from tests.api.served import ISSUER, Served, admin_stub, people_changes, reason, serve
from tests.hostile_id_tokens import HOSTILE, TWINS, World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[Served, World]]:
    """brokerd with a provider whose keys the forger has, and who is Kim there."""
    url = f"http://127.0.0.1:{free_port()}"
    now = SystemClock().now().replace(microsecond=0)
    forged = World.of(url, "https://other.example.org", str(ISSUER["audience"]), "kim", now)

    async def keys(request: web.Request) -> web.Response:
        return web.Response(body=forged.own.document(), content_type="application/json")

    app = web.Application()
    app.router.add_get("/keys", keys)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(url.rpartition(":")[2])).start()
    changes = {**people_changes(tmp_path), "people": {"issuers": {url: {**ISSUER, "jwks_uri": f"{url}/keys"}}}}
    async with serve(tmp_path, served_provider=False, **changes) as served:
        yield served, forged
    await runner.cleanup()


async def test_each_is_refused_by_name_with_an_audit_event(world: tuple[Served, World]) -> None:
    served, forged = world
    served.daemon._budget._per_window = 1_000_000  # every refusal has an event of its own
    expected = []
    for case in HOSTILE:
        token = case.make(forged)
        if not token.isascii() or not token.isprintable():
            continue  # no metadata can carry it
        try:
            await admin_stub(served, token).GetOperator(pb.GetOperatorRequest())
        except grpc.aio.AioRpcError as error:
            refused = error
        else:
            pytest.fail(f"{case.name} came in")
        # Of an issuer that is not configured nobody's keys are asked.
        assert reason(refused) == (grpc.StatusCode.UNAUTHENTICATED, case.reason), case.name
        assert token not in str(refused)
        expected.append(("anonymous", case.reason))
    assert await served.refusals() == expected


async def test_each_twin_comes_in(world: tuple[Served, World]) -> None:
    served, forged = world
    for case in TWINS:
        told = await admin_stub(served, case.make(forged)).GetOperator(pb.GetOperatorRequest())
        assert told.key == "kim", case.name
