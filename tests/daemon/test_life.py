"""The brokerd process: starting, refusing to start, reloading, draining, dying and coming back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import yaml
from google.protobuf.duration_pb2 import Duration

from broker.api.v1 import broker_service_pb2 as pb
from broker.audit.record import decode
from broker.config import load_config
from broker.daemon import wiring
from broker.daemon.main import _reload_when_told
from broker.errors import NotReady, Reason
from broker.stores.audit_reader import AuditReader
from tests.api.served import ANALYST, CA, Served, ask, reason, serve, start_task, svid, write_config
from tests.clock import TICK, StoppableClock
from tests.connectors.fake import IssueMishap
from tests.daemon.warm import WarmBrokerd
from tests.patience import PATIENCE, becomes_true, eventually, until

ENVIRONMENT = {
    **os.environ,
    "BROKER_DEV_OPENBAO_ADDR": "http://127.0.0.1:9",  # the discard port: nothing answers
    "BROKER_DEV_POSTGRES_HOST": "127.0.0.1",
    "BROKER_DEV_POSTGRES_PORT": "9",
    "BROKER_DEV_POSTGRES_DATABASE": "orders",
    "BROKER_DEV_AWS_ENDPOINT": "http://127.0.0.1:9",
    "BROKER_DEV_AWS_ACCESS_KEY_ID": "unused",
    "BROKER_DEV_AWS_SECRET_ACCESS_KEY": "unused",
    "BROKER_DEV_MINIO_ENDPOINT": "http://127.0.0.1:9",
    "BROKER_DEV_MINIO_USER": "unused",
    "BROKER_DEV_MINIO_SECRET_KEY": "unused",
}


def brokerd(config: Path) -> WarmBrokerd:
    return WarmBrokerd(config, ENVIRONMENT, config.with_suffix(".said"))


def page(port: int, name: str) -> requests.Response | None:
    session = requests.Session()
    session.trust_env = False
    try:
        return session.get(f"http://127.0.0.1:{port}/{name}", timeout=PATIENCE)
    except requests.ConnectionError:
        return None


def until_ready(config: Path, ended: Callable[[], int | None]) -> int:
    """The port of the operators' pages, when it says that it is ready."""
    port = load_config(config).listen.operations.port

    def ready() -> bool:
        assert ended() is None, "it ended"
        answer = page(port, "readyz")
        return answer is not None and answer.status_code == 200

    until(ready)
    return port


@contextmanager
def running_command(config: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command itself, in a new interpreter."""
    command = [sys.executable, "-m", "broker.daemon", "--config", str(config)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL) as process:
        try:
            yield process, until_ready(config, process.poll)
        finally:
            process.kill()


@contextmanager
def running(config: Path) -> Iterator[tuple[WarmBrokerd, int]]:
    process = brokerd(config)
    try:
        yield process, until_ready(config, process.poll)
    finally:
        process.kill()
        sys.stderr.write(process.said())


def refuses(config: Path) -> str:
    """What brokerd says before it exits 78."""
    process = brokerd(config)
    assert process.wait(PATIENCE) == 78
    return process.said()


@pytest.mark.parametrize("started", [running, pytest.param(running_command, marks=pytest.mark.slow)])
def test_starts_tells_and_stops_as_told(tmp_path: Path, started: Callable[[Path], Any]) -> None:
    config = write_config(tmp_path)
    with started(config) as (process, port):
        assert (live := page(port, "livez")) is not None
        assert live.json() == {"live": True}
        assert (metrics := page(port, "metrics")) is not None
        for name in ("broker_open_tasks 0", "broker_ready 1", "broker_revocations_overdue 0", "broker_audit_outbox"):
            assert name in metrics.text
        assert (tmp_path / "state" / "brokerd.pid").read_text().strip() == str(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not (tmp_path / "state" / "brokerd.pid").exists()


@pytest.mark.slow
def test_a_ledger_that_is_removed_beneath_it_closes_the_gate_and_no_new_one_is_begun(tmp_path: Path) -> None:
    config, ledger = write_config(tmp_path), tmp_path / "state" / "ledger.sqlite3"
    with running(config) as (process, port):
        ledger.rename(tmp_path / "mislaid")

        def told() -> bool:
            answer = page(port, "readyz")
            return answer is not None and answer.status_code == 503 and "removed or replaced" in answer.text

        until(told)
        (tmp_path / "mislaid").rename(ledger)
        until_ready(config, process.poll)
        ledger.unlink()
        until(told)
    assert "put it back" in refuses(config) and not ledger.exists()


@pytest.mark.slow
def test_where_the_export_has_the_trail_of_a_ledger_an_empty_one_is_not_begun(tmp_path: Path) -> None:
    """All of it was removed, with what lay beside it: the export is elsewhere."""
    config, export = write_config(tmp_path), tmp_path / "audit.jsonl"
    with running(config) as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    kept = export.read_bytes()
    assert kept
    for left in (tmp_path / "state").iterdir():
        left.unlink()
    for _ in range(2):  # a supervisor tries again
        said = refuses(config)
        assert str(export) in said
        assert "put it back, or restore a backup" in said
    assert export.read_bytes() == kept
    export.rename(tmp_path / "kept.jsonl")  # a person means it
    with running(config) as (process, _):
        pass


def test_what_it_only_tells_others_in_files_keeps_it_from_nothing(tmp_path: Path) -> None:
    """F36: a disk so full that no byte can be had beside the ledger's own; what is due is still revoked."""
    config, state = write_config(tmp_path), tmp_path / "state"
    for name in ("reload.part", "brokerd.pid"):  # nor can these be written
        (state / name).mkdir(parents=True)
    state.chmod(0o700)
    with running(config) as (process, _):
        process.send_signal(signal.SIGHUP)
        until(lambda: process.said().count("what came of a reload cannot be written") > 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert "the pid file cannot be written" in process.said() and "Traceback" not in process.said()
    # It drained.
    with AuditReader(state / "ledger.sqlite3") as trail:
        assert [record.type for record in trail.records()][-1] == "daemon.stopped"


def test_every_problem_of_the_configuration_with_file_and_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, tenant="", unknown=1)
    said = refuses(config)
    assert "brokerd.yaml" in said
    assert "unknown" in said
    assert "tenant" in said


def test_a_bad_set_at_start_refuses_to_serve(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "deploy" / "agents" / "bad.yaml").write_text("spiffe_id: nonsense\n")
    (tmp_path / "deploy" / "agents" / "bad.yaml").chmod(0o600)
    assert "bad.yaml:1" in refuses(config)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    (tmp_path / "keys" / "mac.key").chmod(0o644)
    assert "chmod" in refuses(config)


@pytest.mark.slow
def test_two_cannot_share_a_ledger(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config):
        other = yaml.safe_load(config.read_text())
        other["listen"] = {"agents": "127.0.0.1:1", "operations": "127.0.0.1:2"}
        second = tmp_path / "second.yaml"
        second.write_text(yaml.safe_dump(other))
        second.chmod(0o600)
        process = brokerd(second)
        assert process.wait(PATIENCE) != 0
        assert "ledger" in process.said()


@pytest.mark.slow
def test_a_port_that_is_taken_is_told_in_a_line(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    listen = load_config(config).listen
    for taken in (listen.agents, listen.operations):
        with socket.socket() as holder:
            holder.bind(tuple(taken))
            holder.listen()
            process = brokerd(config)
            assert process.wait(PATIENCE) == 69
            said = process.said()
        assert str(taken.port) in said
        assert "Traceback" not in said


def outcome(root: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((root / "state" / "reload.json").read_text())
    return told


def test_hangup_reloads_and_a_bad_set_keeps_the_last_good(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config) as (process, _):
        first = outcome(tmp_path)
        assert first["ok"]
        template = tmp_path / "deploy" / "templates" / "orders-readonly.yaml"
        good = template.read_text()
        template.write_text(good + "surprise: 1\n")
        process.send_signal(signal.SIGHUP)
        second = until(lambda: (o := outcome(tmp_path))["generation"] > first["generation"] and o)
        assert not second["ok"]
        assert any("orders-readonly.yaml" in problem and "surprise" in problem for problem in second["problems"])
        assert second["digest"] == first["digest"]
        template.write_text(good.replace("15m", "14m"))
        process.send_signal(signal.SIGHUP)
        third = until(lambda: (o := outcome(tmp_path))["generation"] > second["generation"] and o)
        assert third["ok"]
        assert third["digest"] != first["digest"]


def test_an_atomic_swap_is_noticed(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    deploy = tmp_path / "deploy"
    deploy.rename(tmp_path / "v1")
    deploy.symlink_to("v1")
    with running(config):
        first = outcome(tmp_path)
        subprocess.run(["cp", "-a", str(tmp_path / "v1"), str(tmp_path / "v2")], check=True)
        template = tmp_path / "v2" / "templates" / "orders-readonly.yaml"
        template.write_text(template.read_text().replace("15m", "13m"))
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(deploy)
        second = until(lambda: (o := outcome(tmp_path))["generation"] > first["generation"] and o)
        assert second["ok"]
        assert second["digest"] != first["digest"]


async def test_however_often_it_is_told_one_reload_more_is_enough() -> None:
    begun, go_on, told = 0, asyncio.Event(), asyncio.Event()

    class Daemon:
        async def reload(self) -> None:
            nonlocal begun
            begun += 1
            await go_on.wait()
            if begun == 1:
                raise NotReady(Reason.STORE_UNAVAILABLE, "not now")
            if begun == 2:
                raise RuntimeError("whatever")

    waiting = asyncio.create_task(_reload_when_told(Daemon(), told))  # type: ignore[arg-type]
    told.set()
    await becomes_true(lambda: begun == 1)
    for _ in range(300):
        told.set()
    go_on.set()
    await becomes_true(lambda: begun == 2 and not told.is_set())
    told.set()  # no failure is the last one
    await becomes_true(lambda: begun == 3)
    waiting.cancel()


def test_hang_ups_at_the_stop_change_nothing_any_more(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    with running(config) as (process, _):
        for _ in range(30):
            process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    with AuditReader(tmp_path / "state" / "ledger.sqlite3") as trail:
        told = [decode(row.body).type for row in trail.rows()]
    assert told[-1] == "daemon.stopped"
    assert told.count("deploy.activated") < 10


# ------------------------------------------------------------------ with agents, in this process


async def test_a_ledger_that_fails_after_a_set_is_in_force_keeps_nobody_from_hearing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serve(tmp_path) as served:
        heard = 0

        def changed() -> None:
            nonlocal heard
            heard += 1

        async def away(*_: Any, **__: Any) -> int:
            raise NotReady(Reason.STORE_UNAVAILABLE, "not now")

        reloader, store = served.daemon.reloader, served.daemon._store
        reloader.on_change = changed
        template = tmp_path / "deploy" / "templates" / "orders-readonly.yaml"
        template.write_text(template.read_text().replace("15m", "14m"))
        with monkeypatch.context() as failing:
            failing.setattr(store, "end_unregistered", away)
            assert await reloader.reload()
        assert (outcome(tmp_path)["digest"], heard) == (served.daemon._files.current.digest, 1)


async def test_of_two_reloads_the_later_one_stays(tmp_path: Path) -> None:
    """A signal and a swap may come together; the one that began first must not be done last."""
    async with serve(tmp_path) as served:
        reloader, pool = served.daemon.reloader, served.daemon._pool
        activate, reached, go_on = pool.activate, asyncio.Event(), asyncio.Event()

        async def slow(prepared: Any) -> None:
            if not reached.is_set():
                reached.set()
                await go_on.wait()
            await activate(prepared)

        pool.activate = slow  # type: ignore[method-assign]
        template = tmp_path / "deploy" / "templates" / "orders-readonly.yaml"
        template.write_text(template.read_text().replace("15m", "14m"))
        first = asyncio.ensure_future(reloader.reload())
        await reached.wait()
        template.write_text(template.read_text().replace("14m", "13m"))
        second = asyncio.ensure_future(reloader.reload())
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done  # it waits its turn, however long that takes
        go_on.set()
        assert await asyncio.gather(first, second) == [True, True]
        assert served.daemon._files.current.templates["orders-readonly"].max_ttl == timedelta(minutes=13)


async def test_the_broker_goes_on_while_a_set_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(tmp_path) as served:
        files, reading, go_on = served.daemon._files, threading.Event(), threading.Event()
        load = files.load

        def slow() -> Any:
            reading.set()
            assert go_on.wait(PATIENCE)
            return load()

        monkeypatch.setattr(files, "load", slow)
        reloading = asyncio.ensure_future(served.daemon.reload())
        await becomes_true(reading.is_set)
        try:
            assert await served.stub().WhoAmI(pb.WhoAmIRequest())
            assert not reloading.done()
        finally:
            go_on.set()
        assert (await reloading).accepted


async def test_a_set_that_ends_its_reader_is_refused_and_told(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        files = served.daemon._files
        before, load = files.current, files.load

        def broken() -> Any:
            raise KeyError("left")

        files.load = broken  # type: ignore[method-assign]
        told = await served.daemon.reload("somebody")
        assert not told.accepted
        assert "KeyError" in told.problems[0]
        assert outcome(tmp_path)["problems"] == list(told.problems)
        assert files.current is before
        (refused,) = [each for each in await served.audit() if each["type"] == "deploy.refused"]
        assert (refused["actor"], refused["data"]["problems"]) == ("somebody", list(told.problems))
        files.load = load  # type: ignore[method-assign]
        assert await served.daemon.reloader.reload()


async def test_an_agent_that_leaves_the_registry_loses_its_leases(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        stub = served.stub()
        grant = await stub.RequestCredential(ask(await start_task(stub)))
        (tmp_path / "deploy" / "agents" / "analyst.yaml").unlink()
        assert await served.daemon.reloader.reload()
        await eventually(lambda: _gone(served))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetLease(pb.GetLeaseRequest(lease_id=grant.lease.id))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        causes = [r["data"].get("cause") for r in await served.audit() if r["type"] == "lease.revoking"]
        assert causes == ["HOLDER_UNREGISTERED"]


async def _gone(served: Served) -> bool:
    return not served.upstream.alive


async def test_a_connector_with_living_leases_is_not_taken_away(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        stub = served.stub()
        await stub.RequestCredential(ask(await start_task(stub)))
        for name in ("orders-readonly", "orders-readwrite"):
            (tmp_path / "deploy" / "templates" / f"{name}.yaml").unlink()
        connectors = tmp_path / "deploy" / "connectors.yaml"
        document = yaml.safe_load(connectors.read_text())
        del document["connectors"]["openbao-orders"]
        connectors.write_text(yaml.safe_dump(document))
        assert not await served.daemon.reloader.reload()
        assert "openbao-orders" in outcome(tmp_path)["problems"][0]


async def test_stopping_takes_back_what_was_under_way(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        stub = served.stub()
        task = await start_task(stub)
        issue, reached = served.upstream.issue, asyncio.Event()

        async def slow(*args: Any) -> Any:
            reached.set()
            await becomes_true(lambda: served.daemon.gate.draining)
            return await issue(*args)

        served.upstream.issue = slow  # type: ignore[method-assign]
        asking = asyncio.ensure_future(stub.RequestCredential(ask(task)))
        await reached.wait()
        stopping = asyncio.ensure_future(served.daemon.stop())
        # New work is refused at once, what is under way is answered.
        assert (await asking).credential.database_login.username
        await stopping
        served.daemon.stop = _nothing  # type: ignore[method-assign]


async def test_a_stop_waits_for_no_stream(tmp_path: Path) -> None:
    """They have no end of their own: with one agent that held its task each stop took all of the drain's time."""
    async with serve(tmp_path, limits={"drain_timeout": "5m"}) as served:
        stub = served.stub()
        hold = stub.HoldTask(pb.HoldTaskRequest(task_id=await start_task(stub)))
        watch = stub.WatchLeases(pb.WatchLeasesRequest())
        for stream in (hold, watch):
            await stream.read()
        await asyncio.wait_for(served.daemon.stop(), PATIENCE)
        served.daemon.stop = _nothing  # type: ignore[method-assign]
        for stream in (hold, watch):
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                while await stream.read() is not grpc.aio.EOF:
                    pass
            assert reason(ended.value) == (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")


async def test_while_a_stop_waits_for_a_call_streams_go_on(tmp_path: Path) -> None:
    """Else who holds a task would not be heard for as long, and the task ended as one that nobody holds."""
    async with serve(tmp_path, limits={"drain_timeout": "5m"}) as served:
        stub = served.stub()
        task = await start_task(stub)
        hold = stub.HoldTask(pb.HoldTaskRequest(task_id=task, grace=Duration(seconds=3)))
        await hold.read()
        served.upstream.issue_mishaps.append(IssueMishap.HANG)
        asked = asyncio.ensure_future(stub.RequestCredential(ask(task)))
        await becomes_true(lambda: not served.upstream.issue_mishaps)
        stopping = asyncio.ensure_future(served.daemon.stop())
        served.daemon.stop = _nothing  # type: ignore[method-assign]
        for _ in range(3):
            assert await asyncio.wait_for(hold.read(), PATIENCE) is not grpc.aio.EOF
        assert not stopping.done()
        asked.cancel()
        await asyncio.wait_for(stopping, PATIENCE)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("mac_key_id = 'another'", "under a key that this brokerd does not have"),
        ("mac = zeroblob(32)", "lost what was committed to it"),
    ],
)
async def test_it_ends_and_says_why_where_the_ledger_cannot_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, why: str
) -> None:
    """As where another broker has written with a key that this one was not given."""
    said: list[str] = []
    monkeypatch.setattr(wiring.log, "critical", lambda what, **_: said.append(what), raising=False)
    async with serve(tmp_path) as served:
        asked = asyncio.Event()
        ending = asyncio.create_task(served.daemon.until(asked))
        with closing(sqlite3.connect(tmp_path / "state" / "ledger.sqlite3", isolation_level=None)) as theirs:
            theirs.execute(f"UPDATE audit_head SET {change}")
        with pytest.raises(grpc.aio.AioRpcError):
            await start_task(served.stub())
        assert await asyncio.wait_for(ending, PATIENCE) is False
    assert len(said) == 1 and why in said[0]


async def _nothing() -> None:
    """The daemon was stopped by the test itself."""


async def test_the_watcher_resumes_by_sequence_and_hears_heartbeats(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        stub = served.stub()
        watch = stub.WatchLeases(pb.WatchLeasesRequest(after_sequence=-1))
        start = await watch.read()
        assert start.type == ""
        grant = await stub.RequestCredential(ask(await start_task(stub)))
        first = await watch.read()
        assert (first.type, first.lease.id) == ("lease.intent", grant.lease.id)
        watch.cancel()
        again = stub.WatchLeases(pb.WatchLeasesRequest(after_sequence=first.sequence))
        assert (await again.read()).type == ""
        second = await again.read()
        assert (second.type, second.previous_sequence) == ("lease.issued", first.sequence)
        again.cancel()


async def test_a_dropped_connection_takes_the_credential_back(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        stub = served.stub()
        task = await start_task(stub)
        issue = served.upstream.issue
        reached = asyncio.Event()

        async def slow(*args: Any) -> Any:
            reached.set()
            await becomes_true(lambda: len(served.daemon.doors.issuer._in_flight) > 1)  # its taking back waits for it
            return await issue(*args)

        served.upstream.issue = slow  # type: ignore[method-assign]
        asking = asyncio.ensure_future(stub.RequestCredential(ask(task)))
        await reached.wait()
        asking.cancel()
        await eventually(lambda: _ended(served))
        assert served.upstream.alive == {}


async def _ended(served: Served) -> bool:
    leases = (await served.stub().ListLeases(pb.ListLeasesRequest())).leases
    return [lease.state for lease in leases] == [4]  # STATE_REVOKED


async def test_an_svid_that_expires_on_an_open_connection(tmp_path: Path) -> None:
    """By the broker's clock; over TLS, which has its own, it is good for longer than the test lasts."""
    clock = StoppableClock()
    async with serve(tmp_path, clock=clock) as served:
        short = svid(ANALYST, ends=datetime.now(UTC) + timedelta(minutes=5) - CA.at)
        ends = short.certificate.not_valid_after_utc
        clock.stop_at(ends)
        stub = served.stub(short)
        watch = stub.WatchLeases(pb.WatchLeasesRequest())
        await watch.read()
        await stub.WhoAmI(pb.WhoAmIRequest())
        clock.stop_at(ends + TICK)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WhoAmI(pb.WhoAmIRequest())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await served.stub().StartTask(pb.StartTaskRequest(request_id="x", purpose="makes no lease event"))
        await served.stub().RequestCredential(ask(await start_task(served.stub(), "y")))
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            while True:
                if await watch.read() is grpc.aio.EOF:
                    raise AssertionError("the stream ended without saying why")
        assert cut.value.code() is grpc.StatusCode.UNAUTHENTICATED
