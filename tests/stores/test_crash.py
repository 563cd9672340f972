"""kill -9 in the middle of commits: what was answered is there, and the chain is whole.

SIGKILL proves that nothing acknowledged was only in the process's memory; it does not prove what a power
cut does (the page cache survives a kill). That is what ``synchronous=FULL`` is asserted for.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broker.lease.machine import State
from broker.stores.audit_reader import AuditReader
from broker.stores.sqlite import SqliteStore
from tests.stores.make import TASK, TENANT, Keys, at


@pytest.mark.parametrize(
    "lines", [pytest.param(1, marks=pytest.mark.slow), 40, pytest.param(300, marks=pytest.mark.slow)]
)
async def test_every_acknowledged_row_survives(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "ledger.sqlite3"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stores.committer", str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as victim:
        assert victim.stdout is not None
        told = [victim.stdout.readline() for _ in range(lines)]
        victim.kill()
        told += victim.stdout.readlines()  # what it managed to say before the signal took it
    acknowledged = [line.split() for line in told if line.endswith("\n")]
    assert len(acknowledged) >= lines

    store = await SqliteStore.open(path, Keys(), "survivor")
    leases = {lease.id: lease for lease in await store.task_leases(TENANT, TASK)}
    for what, lease_id in acknowledged:
        if what == "active":
            assert leases[lease_id].state is State.ACTIVE
        else:
            assert leases[lease_id].state in (State.ISSUING, State.ACTIVE)
    # Whatever it was issuing is found, acknowledged or not.
    unknown = sum(lease.state is State.ISSUING for lease in leases.values())
    assert await store.recover(at(3)) == unknown
    await store.close()
    with AuditReader(path) as audit:
        assert list(audit.verify(Keys().find)) == []
        assert {record.writer for record in audit.records()} == ({"victim", "survivor"} if unknown else {"victim"})
