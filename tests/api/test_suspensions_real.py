"""A suspension kills a live PostgreSQL login: brokerd, OpenBao and PostgreSQL, all real."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import psycopg
import pytest

from broker.api.v1 import admin_service_pb2 as admin
from broker.api.v1 import credential_pb2
from broker.lease.credential import DatabaseLogin
from broker.secret import Secret
from tests.api.real_upstreams import real, set_environment
from tests.api.served import ANALYST, ask, people_changes, person, reason, serve, start_task
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in, conninfo
from tests.patience import until


def login_of(message: credential_pb2.Credential) -> DatabaseLogin:
    login = message.database_login
    return DatabaseLogin("postgresql", login.host, login.port, login.database, login.username, Secret(login.password))


async def test_an_open_session_is_ended_and_the_login_gone(
    tmp_path: Path, openbao_server: ConfiguredOpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(openbao_server, monkeypatch)
    limits = {"issue_timeout": "20s", "drain_timeout": "20s"}
    async with serve(tmp_path, build=real, limits=limits, **people_changes(tmp_path)) as served:
        agent = served.stub(ANALYST)
        task = await start_task(agent)
        login = login_of((await agent.RequestCredential(ask(task))).credential)
        session = await asyncio.to_thread(psycopg.connect, conninfo(login), autocommit=True)
        assert (await asyncio.to_thread(session.execute, "SELECT count(*) FROM orders")).fetchone() == (5,)

        asked = admin.SuspendRequest(request_id="s", kind="KIND_AGENT", value=ANALYST, reason="it went mad")
        answer = await person(served, "kim").Suspend(asked)
        assert answer.attempts_ended == 1

        await asyncio.to_thread(until, lambda: not _alive(session))
        assert not await asyncio.to_thread(can_log_in, login)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await agent.RequestCredential(ask(task, "r2"))
        assert reason(refused.value) == (grpc.StatusCode.PERMISSION_DENIED, "SUSPENDED")


def _alive(session: psycopg.Connection) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
