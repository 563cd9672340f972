"""A brokerd that finds its ledger behind its own witness grants nothing and goes on revoking; two people end it."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import recovery_pb2 as recovery
from broker.approval.intent_digest import RELEASE_RECOVERY
from broker.audit.event import EventType
from broker.audit.offline import Audit
from broker.audit.witnessed import Witnessed
from broker.cli.audit_offline import witness as shown_by
from broker.keys import new_key
from broker.ports.trail import Evidence
from tests.api.served import Served, ask, fresh, people_changes, person, private, reason, serve, start_task
from tests.audit.trail import KEY
from tests.patience import eventually
from tests.witnesses.fake import signing_key

NOT_READY = grpc.StatusCode.UNAVAILABLE


def changes(root: Path) -> dict[str, Any]:
    private(root / "keys" / "kept.key", new_key())
    signing_key(root / "keys" / "checkpoint.key")
    (root / "elsewhere").mkdir(exist_ok=True)
    checkpoints = {
        "signing_keys": ["file:keys/checkpoint.key"],
        "every": "100ms",
        "witnesses": {"disk": {"file": "elsewhere/notes"}},
    }
    audit = {"export_file": "audit.jsonl", "checkpoints": checkpoints}
    return {
        **people_changes(root),
        "audit": audit,
        "roles": ROLES,
        "keys": {"ledger": ["file:keys/kept.key"]},
    }


ROLES = {"viewer": ["data-platform"], "operator": ["operations", "data-platform"], "security": ["security"]}


def copy_ledger(root: Path, name: str) -> None:
    """As `broker backup` would: whole, at one moment."""
    with sqlite3.connect(root / "state" / "ledger.sqlite3") as ledger, sqlite3.connect(root / name) as copy:
        ledger.backup(copy)
    ledger.close()
    copy.close()


def restore(root: Path, name: str) -> None:
    for old in (root / "state").glob("ledger.sqlite3*"):
        old.unlink()
    shutil.copyfile(root / name, root / "state" / "ledger.sqlite3")
    (root / "state" / "ledger.sqlite3").chmod(0o600)


def page(served: Served, name: str) -> str:
    url = f"http://127.0.0.1:{served.daemon._operations.port}/{name}"
    try:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refused:
        return str(refused.read().decode())


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return reason(caught.value)


async def release(served: Served, who: str, recovery_id: str, request_id: str = "r1") -> Any:
    fields = {"recovery_id": recovery_id, "reason": "looked at it"}
    proof = fresh(served, who, RELEASE_RECOVERY, **fields)
    asked = recovery.ReleaseRecoveryRequest(**fields, request_id=request_id, fresh_id_token=proof)
    return (await person(served, who).ReleaseRecovery(asked)).recovery


async def test_a_restored_ledger_grants_nothing_until_two_people_release_it(tmp_path: Path) -> None:
    how = changes(tmp_path)
    async with serve(tmp_path, **how) as served:
        task = await start_task(served.stub())
        copy_ledger(tmp_path, "backup.sqlite3")
        lease = await served.stub().RequestCredential(ask(task))
        store = served.daemon._store
        assert store is not None

        async def sent() -> bool:
            return (tmp_path / "elsewhere" / "notes").exists()

        await eventually(sent)
        assert lease.lease.id
    restore(tmp_path, "backup.sqlite3")

    async with serve(tmp_path, **how) as served:
        # Nothing is granted, and what was open in the copy is over.
        assert await refusal(start_task(served.stub(), "t2")) == (NOT_READY, "RECOVERY_MODE")
        assert (await served.stub().GetTask(pb.GetTaskRequest(task_id=task))).state != 1
        told = json.loads(await asyncio.to_thread(page, served, "readyz"))
        assert (told["ready"], "recovery" in told["problems"][0]) == (False, True)
        assert "broker_recovery 1" in await asyncio.to_thread(page, served, "metrics")
        found = (await person(served, "kim").GetRecovery(recovery.GetRecoveryRequest())).recovery
        assert found.state == recovery.Recovery.STATE_OPEN
        assert found.witnessed_records > found.ledger_records
        before = (tmp_path / "elsewhere" / "notes").read_bytes()

    # It survives a restart, and a witness is not told anything meanwhile.
    async with serve(tmp_path, **how) as served:
        assert (tmp_path / "elsewhere" / "notes").read_bytes() == before
        assert (await person(served, "kim").GetRecovery(recovery.GetRecoveryRequest())).recovery.id == found.id
        unproven = recovery.ReleaseRecoveryRequest(recovery_id=found.id, request_id="r0", reason="looked at it")
        assert (await refusal(person(served, "dana").ReleaseRecovery(unproven)))[1] == "FRESH_LOGIN_REQUIRED"
        assert (await release(served, "dana", found.id)).state == recovery.Recovery.STATE_RELEASE_BEGUN
        again = release(served, "dana", found.id, "r2")
        assert await refusal(again) == (grpc.StatusCode.PERMISSION_DENIED, "SECOND_PERSON_REQUIRED")
        assert await refusal(start_task(served.stub(), "t2")) == (NOT_READY, "RECOVERY_MODE")
        assert (await release(served, "sam", found.id)).state == recovery.Recovery.STATE_RELEASED
        await start_task(served.stub(), "t2")
        types = [record["type"] for record in await served.audit() if record["type"].startswith("recovery.")]
        assert types == ["recovery.entered", "recovery.release_begun", "recovery.released"]

    # Once released, that stays so; and an auditor is told what happened.
    async with serve(tmp_path, **how) as served:
        await start_task(served.stub(), "t3")
    bodies = _bodies(tmp_path)
    keys = (KEY.public_key(),)
    witness: Witnessed = shown_by(tmp_path / "elsewhere" / "notes", keys)
    problems = {str(each.problem) for each in Audit(keys, [witness], closed=True).verify(bodies)}
    assert "FORKED" in problems


def _bodies(root: Path) -> list[bytes]:
    with sqlite3.connect(root / "state" / "ledger.sqlite3") as ledger:
        found = [row[0] for row in ledger.execute("SELECT body FROM audit ORDER BY seq")]
    ledger.close()
    return found


async def test_a_broker_that_only_stopped_goes_on_and_its_trail_is_whole(tmp_path: Path) -> None:
    how = changes(tmp_path)
    for number in range(3):
        async with serve(tmp_path, **how) as served:
            await start_task(served.stub(), f"t{number}")
    keys = (KEY.public_key(),)
    audit = Audit(keys, [shown_by(tmp_path / "elsewhere" / "notes", keys)], closed=True)
    assert list(audit.verify(_bodies(tmp_path))) == []
    assert audit.witnessed == audit.signed == audit.records - 1


async def test_an_empty_ledger_beside_a_witness_that_knows_better(tmp_path: Path) -> None:
    how = changes(tmp_path)
    async with serve(tmp_path, **how) as served:
        await start_task(served.stub())
    for old in (tmp_path / "state").glob("ledger.sqlite3*"):
        old.unlink()
    async with serve(tmp_path, **how) as served:
        assert await refusal(start_task(served.stub(), "t2")) == (NOT_READY, "RECOVERY_MODE")


async def test_what_no_key_of_ours_has_signed_is_no_reason_to_grant(tmp_path: Path) -> None:
    how = changes(tmp_path)
    (tmp_path / "elsewhere" / "notes").write_text("this is what somebody wrote there\n")
    async with serve(tmp_path, **how) as served:
        assert await refusal(start_task(served.stub())) == (NOT_READY, "RECOVERY_MODE")


async def test_before_the_witness_was_asked_nothing_is_granted_and_revocation_goes_on(tmp_path: Path) -> None:
    how = changes(tmp_path)
    async with serve(tmp_path, **how) as served:
        task = await start_task(served.stub())
        lease = (await served.stub().RequestCredential(ask(task))).lease
        await served.stub().ConfirmDelivery(pb.ConfirmDeliveryRequest(lease_id=lease.id, attempt_id=lease.attempt_id))
    notes = tmp_path / "elsewhere" / "notes"
    kept = notes.read_bytes()
    notes.unlink()
    notes.symlink_to(tmp_path / "nowhere")  # it cannot be read
    async with serve(tmp_path, **how) as served:
        assert await refusal(start_task(served.stub(), "t2")) == (NOT_READY, "WITNESS_UNREAD")
        await served.stub().RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))
        notes.unlink()
        notes.write_bytes(kept)
        await served.daemon._witnessing.ask_unread()  # type: ignore[union-attr]
        await start_task(served.stub(), "t2")


async def test_who_finds_nothing_newer_looks_whether_another_replica_has_begun_recovery(tmp_path: Path) -> None:
    """F35: the other has witnessed its own recovery since, so the witness has nothing that the ledger lacks."""
    how = changes(tmp_path)
    async with serve(tmp_path, **how) as served:
        await start_task(served.stub())
    notes = tmp_path / "elsewhere" / "notes"
    kept = notes.read_bytes()
    notes.unlink()
    notes.symlink_to(tmp_path / "nowhere")  # it cannot be read yet
    async with serve(tmp_path, **how) as served:
        now = served.daemon._clock.now()
        found = Evidence("disk", "it has seen more", "note", 99, int(now.timestamp() * 1000))
        store = served.daemon._store
        assert store is not None
        await store.enter_recovery(served.daemon._config.tenant, "recovery-of-another", found, now)
        notes.unlink()
        notes.write_bytes(kept)
        await served.daemon._witnessing.ask_unread()  # type: ignore[union-attr]
        assert served.daemon.gate.recovery == "recovery-of-another"
        assert await refusal(start_task(served.stub(), "t2")) == (NOT_READY, "RECOVERY_MODE")


async def test_a_witness_that_takes_nothing_stops_grants_and_nothing_else(tmp_path: Path) -> None:
    how = changes(tmp_path)
    how["audit"]["max_backlog_records"] = 20
    how["audit"]["checkpoints"]["every_records"] = 5
    async with serve(tmp_path, **how) as served:
        task = await start_task(served.stub())
        lease = (await served.stub().RequestCredential(ask(task))).lease
        notes = tmp_path / "elsewhere" / "notes"

        async def sent() -> bool:
            return notes.exists()

        await eventually(sent)
        # At once, because a checkpoint may be on its way; what is open keeps its file.
        (tmp_path / "elsewhere" / "before").hardlink_to(notes)
        (tmp_path / "elsewhere" / "full").symlink_to("/dev/full")
        (tmp_path / "elsewhere" / "full").replace(notes)

        numbers = itertools.count()
        for _ in range(30):  # and one more is needed for a checkpoint than the witness may lack
            await served.daemon._append(EventType.DAEMON_STARTED, {})

        async def closed() -> bool:
            """The export goes at its own pace, and what it has not taken yet closes the gate for a moment, too."""
            await served.daemon._witnessing.tick()  # type: ignore[union-attr]
            try:
                await start_task(served.stub(), f"before-{next(numbers)}")
            except grpc.aio.AioRpcError as refused:
                return reason(refused) == (NOT_READY, "WITNESS_BACKLOG")
            return False

        await eventually(closed)
        await served.stub().RevokeLease(pb.RevokeLeaseRequest(lease_id=lease.id))
        (tmp_path / "elsewhere" / "before").replace(notes)

        async def opened() -> bool:
            """The export goes at its own pace, and what it has not taken yet closes the gate for a moment, too."""
            await served.daemon._witnessing.tick()  # type: ignore[union-attr]
            try:
                await start_task(served.stub(), "t2")
            except grpc.aio.AioRpcError as refused:
                assert refused.code() is grpc.StatusCode.UNAVAILABLE
                return False
            return True

        await eventually(opened)
    keys = (KEY.public_key(),)
    audit = Audit(keys, [shown_by(notes, keys)], closed=True)
    assert list(audit.verify(_bodies(tmp_path))) == []
