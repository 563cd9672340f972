"""The proxy before OpenBao: everything passes unchanged, one answer is kept back."""

from __future__ import annotations

import asyncio

import hvac
import pytest
from aiohttp import ClientError, ClientSession, web

from broker.cli.demo.proxy import HoldingProxy
from tests.conftest import ConfiguredOpenBao
from tests.patience import PATIENCE

READ_ROLE = "orders-readonly"
READ = f"/v1/database/creds/{READ_ROLE}"


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
    async with HoldingProxy(address, "database", READ_ROLE) as proxy, ClientSession() as client:
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
        async with HoldingProxy(address, "database", READ_ROLE) as proxy:
            reading = asyncio.ensure_future(client.get(proxy.address + READ))
            await asyncio.wait_for(proxy.held.wait(), PATIENCE)
            assert [path for _, path, _, _ in played.asked] == [READ]
            # Others pass while it waits.
            async with client.get(proxy.address + "/v1/sys/health") as answer:
                assert answer.status == 418
            assert not reading.done()
        # Nobody waits for ever when the proxy goes.
        done, _ = await asyncio.wait({reading}, timeout=PATIENCE)
        assert done


async def test_a_refusal_is_not_kept_back(upstream: tuple[Upstream, str]) -> None:
    played, address = upstream
    played.status = 403
    async with HoldingProxy(address, "database", READ_ROLE) as proxy, ClientSession() as client:
        async with client.get(proxy.address + READ) as answer:
            assert answer.status == 403
        assert not proxy.held.is_set()


async def test_before_a_real_openbao(openbao_server: ConfiguredOpenBao) -> None:
    bao, root = openbao_server.database, openbao_server.root_client()
    path = f"{bao.mount}/creds/{READ_ROLE}"
    before = listed(root, path)
    async with HoldingProxy(bao.address, bao.mount, READ_ROLE) as proxy, ClientSession() as client:
        async with client.get(f"{proxy.address}/v1/sys/health") as answer:
            assert (await answer.json())["initialized"] is True
        reading = asyncio.ensure_future(
            client.get(f"{proxy.address}/v1/{path}", headers={"X-Vault-Token": str(root.token)})
        )
        await asyncio.wait_for(proxy.held.wait(), PATIENCE)
        (made,) = listed(root, path) - before
        assert not reading.done()
        reading.cancel()
    root.sys.revoke_lease(f"{path}/{made}")
    with pytest.raises(ClientError):
        async with ClientSession() as client:
            await client.get(f"{proxy.address}/v1/sys/health")


def listed(root: hvac.Client, path: str) -> set[str]:
    try:
        return set(root.sys.list_leases(path)["data"]["keys"])
    except hvac.exceptions.InvalidPath:
        return set()
