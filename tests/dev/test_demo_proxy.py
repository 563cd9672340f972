"""The proxy before OpenBao: everything passes unchanged, one answer is kept back."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientError, ClientSession, web

from broker.cli.demo.proxy import HoldingProxy
from tests.conftest import ConfiguredOpenBao

READ = "/v1/database/creds/orders-readonly"


class Upstream:
    """Answers with what it was asked; ``READ`` with ``status``."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str, str, bytes]] = []

    async def answer(self, request: web.BaseRequest) -> web.Response:
        token = request.headers.get("X-Vault-Token", "")
        self.asked.append((request.method, request.raw_path, token, await request.read()))
        status = self.status if request.path == READ else 418
        return web.Response(status=status, headers={"Retry-After": "3"}, body=b'{"data": 1}' * 1000)


@pytest.fixture
async def upstream():
    played = Upstream()
    runner = web.ServerRunner(web.Server(played.answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield played, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_everything_else_passes_unchanged(upstream: tuple[Upstream, str]) -> None:
    played, address = upstream
    asked = [
        ("PUT", "/v1/sys/leases/revoke", b'{"lease_id": "database/creds/orders-readonly/x"}'),
        ("GET", "/v1/sys/leases/lookup/database/creds/orders-readonly?list=true", b""),
        ("GET", "/v1/database/creds/orders-readwrite", b""),
        ("POST", READ, b"{}"),
    ]
    async with HoldingProxy(address, "database", "orders-readonly") as proxy, ClientSession() as client:
        for method, path, body in asked:
            headers = {"X-Vault-Token": "t"}
            async with client.request(method, proxy.address + path, data=body, headers=headers) as answer:
                expected = 200 if path == READ else 418
                assert (answer.status, answer.headers["Retry-After"]) == (expected, "3")
                assert await answer.read() == b'{"data": 1}' * 1000
        assert not proxy.held.is_set()
    assert played.asked == [(method, path, "t", body) for method, path, body in asked]


async def test_the_answer_is_kept_back_after_it_was_given(upstream: tuple[Upstream, str]) -> None:
    played, address = upstream
    async with ClientSession() as client:
        async with HoldingProxy(address, "database", "orders-readonly") as proxy:
            reading = asyncio.ensure_future(client.get(proxy.address + READ))
            await asyncio.wait_for(proxy.held.wait(), 10)
            assert [path for _, path, _, _ in played.asked] == [READ]
            # Others pass while it waits.
            async with client.get(proxy.address + "/v1/sys/health") as answer:
                assert answer.status == 418
            assert not reading.done()
        # Nobody waits for ever when the proxy goes.
        done, _ = await asyncio.wait({reading}, timeout=10)
        assert done


async def test_a_refusal_is_not_kept_back(upstream: tuple[Upstream, str]) -> None:
    played, address = upstream
    played.status = 403
    async with HoldingProxy(address, "database", "orders-readonly") as proxy, ClientSession() as client:
        async with client.get(proxy.address + READ) as answer:
            assert answer.status == 403
        assert not proxy.held.is_set()


async def test_before_a_real_openbao(openbao_server: ConfiguredOpenBao) -> None:
    bao = openbao_server.database
    role = bao.roles[0]
    token = openbao_server.root_client().token
    headers = {"X-Vault-Token": token}
    async with HoldingProxy(bao.address, bao.mount, role) as proxy, ClientSession() as client:
        async with client.get(f"{proxy.address}/v1/sys/health") as answer:
            assert (await answer.json())["initialized"] is True
        reading = asyncio.ensure_future(client.get(f"{proxy.address}/v1/{bao.mount}/creds/{role}", headers=headers))
        await asyncio.wait_for(proxy.held.wait(), 10)
        path = f"{bao.mount}/creds/{role}"
        assert len(openbao_server.root_client().sys.list_leases(path)["data"]["keys"]) == 1
        assert not reading.done()
        reading.cancel()
    openbao_server.root_client().sys.revoke_prefix(path)
    with pytest.raises(ClientError):
        async with ClientSession() as client:
            await client.get(f"{proxy.address}/v1/sys/health")
