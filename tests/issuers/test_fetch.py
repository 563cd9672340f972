"""One bounded GET, against a real server that misbehaves on request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from broker.issuers import fetch
from broker.issuers.fetch import MAX_BYTES, Fetcher, NotFetched
from tests.forge import authority


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound("/good")

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async def good(request: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    async def full(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * MAX_BYTES)

    app = web.Application()
    app.add_routes([web.get(f"/{each.__name__}", each) for each in (redirect, endless, good, full)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}" if context is None else f"https://localhost:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fetcher(ca_file: Path | None = None) -> AsyncIterator[Fetcher]:
    made = Fetcher(ca_file)
    try:
        yield made
    finally:
        await made.close()


async def test_a_document_is_fetched_up_to_a_size() -> None:
    async with serving() as url, fetcher() as get:
        assert await get(f"{url}/good") == b"{}"
        assert len(await get(f"{url}/full")) == MAX_BYTES
        with pytest.raises(NotFetched, match="more than"):
            await get(f"{url}/endless")


async def test_redirects_are_not_followed_and_nothing_is_not_found() -> None:
    async with serving() as url, fetcher() as get:
        with pytest.raises(NotFetched, match=r"302 \(redirects"):
            await get(f"{url}/redirect")
        with pytest.raises(NotFetched, match="404"):
            await get(f"{url}/nothing")


async def test_nobody_there() -> None:
    async with serving() as url:
        pass
    async with fetcher() as get:
        with pytest.raises(NotFetched, match="could not be reached"):
            await get(f"{url}/good")


async def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SECONDS", 0.05)

    held = []  # from Python 3.13 on a writer that nobody has is closed
    server = await asyncio.start_server(lambda reader, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with fetcher() as get:
        with pytest.raises(NotFetched, match="did not answer"):
            await get(f"http://127.0.0.1:{port}/good")
    server.close()
    for each in held:
        each.close()


async def test_a_private_ca_is_believed_where_it_is_named_and_nowhere_else(tmp_path: Path) -> None:
    ca = authority("idp.example", at=datetime.now(UTC).replace(microsecond=0))
    leaf = ca.svid("spiffe://idp.example/server", dns=["localhost"])
    (tmp_path / "cert.pem").write_bytes(leaf.pem + leaf.chain_pem)
    (tmp_path / "key.pem").write_bytes(leaf.key_pem)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serving(context) as url:
        async with fetcher(tmp_path / "ca.pem") as get:
            assert await get(f"{url}/good") == b"{}"
        async with fetcher() as get:
            with pytest.raises(NotFetched, match="could not be reached"):
                await get(f"{url}/good")
