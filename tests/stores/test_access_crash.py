"""kill -9 between a vote and the intent that it funds: each approval has funded one lease, or can still fund one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.approval.machine import RequestState
from broker.errors import Reason, WrongState
from broker.ports.access_requests import RequestFilter
from broker.stores.audit_reader import AuditReader
from broker.stores.sqlite import SqliteStore
from tests.stores.make import TASK, TENANT, Keys, filing, redeeming

ORDER = {"filed": 1, "approved": 2, "redeemed": 3}
REACHED = {RequestState.AWAITING_APPROVAL: 1, RequestState.APPROVED: 2, RequestState.REDEEMED: 3}


@pytest.mark.parametrize(
    "lines", [pytest.param(1, marks=pytest.mark.slow), 37, pytest.param(200, marks=pytest.mark.slow)]
)
async def test_after_a_kill_every_approval_funds_one_lease(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stores.redeemer", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as victim:
        assert victim.stdout is not None
        told = [victim.stdout.readline() for _ in range(lines)]
        victim.kill()
        told += victim.stdout.readlines()
    acknowledged: dict[str, int] = {}
    for line in told:
        if line.endswith("\n"):
            what, request = line.split()
            acknowledged[request] = max(acknowledged.get(request, 0), ORDER[what])
    assert acknowledged

    store = await SqliteStore.open(path, Keys(), "survivor")
    leases = {lease.id for lease in await store.task_leases(TENANT, TASK)}
    found = {each.id: each for each in await store.list_access_requests(RequestFilter(TENANT), "", 100_000)}
    for request, reached in acknowledged.items():
        assert REACHED[found[request].state] >= reached
    for each in found.values():
        lease = "lease-" + each.id.removeprefix("areq-")
        # The end of the request and the intent of its lease are one commit.
        assert (each.state is RequestState.REDEEMED) is (lease in leases)
        assert each.lease_id == (lease if lease in leases else "")
    for each in [each for each in found.values() if each.state is not RequestState.AWAITING_APPROVAL][:20]:
        name = each.id.removeprefix("areq-")
        again = redeeming(filing(name), f"{name}-again", max_live_leases=10**9)
        if each.state is RequestState.APPROVED:
            assert (await store.open_intent(again)).lease_id == f"lease-{name}"
            again = redeeming(filing(name), f"{name}-more", max_live_leases=10**9)
        with pytest.raises(WrongState) as refused:
            await store.open_intent(again)
        assert refused.value.reason is Reason.ACCESS_REQUEST_REDEEMED
    await store.close()
    with AuditReader(path) as audit:
        assert list(audit.verify(Keys().find)) == []
