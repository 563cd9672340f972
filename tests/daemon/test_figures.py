"""What operators are shown while the ledger cannot be asked: that, and all that is known without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from broker.daemon import figures
from broker.errors import NotReady, Reason
from tests.api.served import ANALYST, Served, ask, reason, serve, start_task
from tests.api.test_root_refused import metric
from tests.clock import Clocks
from tests.patience import becomes_true

FAILURE = NotReady(Reason.STORE_UNAVAILABLE, "the ledger cannot be used (28P01 InvalidPassword).")


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
async def served(tmp_path: Path, clocks: Clocks) -> AsyncIterator[Served]:
    async with serve(tmp_path, clock=clocks.kept()) as running:
        running.daemon.gate.max_heartbeat_age = timedelta(seconds=60)
        yield running


async def failing(*_: object) -> int:
    raise FAILURE


async def test_a_ledger_that_fails_is_told_by_its_own_name(
    served: Served, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No tick gets through to it, so the revoker stands still; that is not what is wrong, and no restart helps."""
    daemon = served.daemon
    task = await start_task(served.stub(ANALYST))
    with monkeypatch.context() as broken:
        broken.setattr(daemon._store, "end_due_tasks", failing)
        await becomes_true(lambda: bool(daemon.gate.ledger_failure))
        clocks.slept = timedelta(seconds=61)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await served.stub(ANALYST).RequestCredential(ask(task, "r1"))
        assert reason(refused.value)[1] == "STORE_UNAVAILABLE"
        (problem,) = daemon._problems()
        assert problem.startswith("STORE_UNAVAILABLE: since ") and "28P01 InvalidPassword" in problem
        assert await metric(served, "broker_revoker_stalled ") == "1.0"
    await becomes_true(lambda: daemon._problems() == [])
    assert not daemon.gate.ledger_failure


async def hanging(*_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("how", [failing, hanging])
async def test_the_page_is_there_without_the_ledgers_figures(
    served: Served, monkeypatch: pytest.MonkeyPatch, how: object
) -> None:
    """An alarm on a figure that is missing is heard; a page that is missing says nothing of why."""
    monkeypatch.setattr(figures, "PATIENCE", 0.2)
    assert await metric(served, "broker_ledger_answers ") == "1.0"
    asked = served.daemon._ledgers_figures
    with monkeypatch.context() as broken:
        broken.setattr(served.daemon._store, "figures", how)
        page = (await served.daemon._scrape()).decode()
        assert "broker_ledger_answers 0.0" in page and "broker_ready 1.0" in page and "broker_rpcs" in page
        assert "broker_open_tasks" not in page and "broker_upstream_unknown{" not in page
        # One question at a time, however often it is scraped.
        before = asked._asking
        await served.daemon._scrape()
        assert (asked._asking is before) == (how is hanging)
    if how is hanging and asked._asking is not None:
        asked._asking.cancel()
        await asyncio.wait({asked._asking})
    assert await metric(served, "broker_ledger_answers ") == "1.0"
    assert await metric(served, "broker_open_tasks ") == "0.0"
