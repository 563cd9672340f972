"""Deploy sets of several replicas, each with a directory of its own: the newest is in force, old copies stay out."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.audit.event import BROKER, EventType
from broker.audit.record import decode
from broker.daemon.pool import ConnectorPool
from broker.daemon.reloading import Reloader
from broker.deployfiles.source import DeployFiles
from broker.identity.behalf import Human
from broker.issuance.among import Among
from broker.lease.machine import State
from broker.lease.root import Roots
from broker.ports.leases import EndCause
from broker.ports.replicas import Heartbeat
from broker.stores.sqlite import SqliteStore
from tests.api.served import DEPLOY, DOMAIN
from tests.clock import ManualClock
from tests.connectors.fake import FakeConnector
from tests.stores.contract import grant
from tests.stores.make import T0, TENANT, Keys, at, new_task

PERSON = "https://id.dev.broker.internal#dana"


class One:
    """One replica's directory, and what takes sets in."""

    def __init__(self, root: Path, name: str, store: SqliteStore, clock: ManualClock) -> None:
        self.name = name
        self.root = root / name
        shutil.copytree(DEPLOY, self.root, copy_function=shutil.copyfile)
        for path in (self.root, *self.root.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
        self.clock = clock
        self.store = store
        self.among = Among()
        self.changes = 0
        self.files = DeployFiles(self.root, DOMAIN)
        pool = ConnectorPool(lambda spec: FakeConnector(clock, name=spec.name), Roots(), clock)
        result = root / f"{name}.json"
        self.reloader = Reloader(self.files, pool, store, clock, TENANT, result, self.among, name)
        self.reloader.on_change = self._changed

    def _changed(self) -> None:
        self.changes += 1

    async def live(self) -> None:
        pulse = await self.store.beat(Heartbeat(self.name, TENANT, self.among.mine), self.clock.now())
        self.among.in_force = pulse.in_force

    def write(self, words: str) -> None:
        """Another set, told by a comment."""
        policy = min((self.root / "policies").glob("*.cedar"))
        text = policy.read_text().rpartition("\n//")[0] or policy.read_text()
        policy.write_text(f"{text}\n// {words}\n")

    @property
    def digest(self) -> str:
        return self.files.current.digest


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), "writer-1")
    yield store
    await store.close()


@pytest.fixture
async def both(tmp_path: Path, store: SqliteStore) -> tuple[One, One]:
    """Two that have begun with the same set, and live."""
    clock = ManualClock(T0)
    made = One(tmp_path, "a", store, clock), One(tmp_path, "b", store, clock)
    for each in made:
        await each.live()
        await each.reloader.first()
    return made


async def activated(store: SqliteStore) -> list[str]:
    records = [decode(body) for body in await store.audit_since(0, 10_000)]
    return [str(record.data["digest"]) for record in records if record.type == EventType.DEPLOY_ACTIVATED]


async def test_the_same_set_on_both_is_in_force_on_both(both: tuple[One, One]) -> None:
    a, b = both
    assert a.digest == b.digest
    assert not a.among.overtaken
    assert not b.among.overtaken


async def test_a_new_set_of_one_is_followed_by_the_other_when_it_has_it(both: tuple[One, One]) -> None:
    """F28: each replica hears of it with its next beat; what is half way on a disk is left alone."""
    a, b = both
    a.write("more")
    assert (await a.reloader.take_in()).accepted
    await b.live()
    assert b.among.overtaken
    before = await activated(b.store)
    await b.reloader.follow(a.digest)
    b.write("something else")
    await b.reloader.follow(a.digest)
    assert b.among.overtaken
    assert await activated(b.store) == before
    b.write("more")
    await b.reloader.follow(a.digest)
    assert not b.among.overtaken
    assert b.digest == a.digest
    assert b.changes == 2


async def test_one_that_starts_from_an_old_copy_stays_out(both: tuple[One, One], tmp_path: Path) -> None:
    """F28: it serves and revokes, grants nothing, and ends nobody's leases in the name of the old set."""
    a, _ = both
    old = a.digest
    a.write("more")
    await a.reloader.take_in()
    late = One(tmp_path, "late", a.store, a.clock)
    assert late.digest == old
    told = await activated(a.store)
    await late.live()
    await late.reloader.first()
    assert late.among.overtaken
    assert late.changes == 0
    assert await activated(a.store) == told
    await a.live()
    assert not a.among.overtaken


async def test_of_an_old_set_nobody_is_ended(both: tuple[One, One]) -> None:
    """F28: who is unknown to an old set may be registered in the newer one. Denied is denied, by whichever."""
    a, b = both
    a.write("more")
    await a.reloader.take_in()
    await b.live()
    await a.store.start_task(new_task())
    lease = await grant(a.store)  # of an agent that neither knows
    b.clock.advance(timedelta(seconds=5))
    await b.reloader.end_unregistered()
    await b.reloader.end_for_disabled()
    assert (await a.store.get_lease(TENANT, lease.id, lease.holder)).state is State.ACTIVE
    await a.reloader.end_unregistered()
    ended = await a.store.get_lease(TENANT, lease.id, lease.holder)
    assert (ended.state, ended.cause) == (State.REVOKING, EndCause.HOLDER_UNREGISTERED)
    assert ended.next_due is not None
    assert ended.next_due <= at(5)


async def test_nor_before_it_hears_that_it_was_replaced(both: tuple[One, One]) -> None:
    """F28: whom the newer set has brought may have got something since, and the next beat is a second away."""
    a, b = both
    a.write("more")
    await a.reloader.take_in()
    await a.store.start_task(new_task())
    await a.store.start_task(new_task("task-2", on_behalf_of=Human("https://id", "who", "Who"), id_token="digest"))
    leases = [await grant(a.store), await grant(a.store, "2", task="task-2")]
    assert not b.among.overtaken
    await b.reloader.end_unregistered()
    await b.reloader.end_for_disabled()
    for lease in leases:
        assert (await a.store.get_lease(TENANT, lease.id, lease.holder)).state is State.ACTIVE


@pytest.mark.parametrize(("actor", "back"), [(BROKER, False), (PERSON, True)])
async def test_to_go_back_somebody_has_to_want_it(both: tuple[One, One], actor: str, back: bool) -> None:
    """A signal, or a swap, takes an old copy in without knowing; a person who asks for it knows."""
    a, b = both
    for words in ("more", "and more"):
        a.write(words)
        await a.reloader.take_in()
    newest = a.digest
    await b.live()
    b.write("more")  # was in force a moment ago
    told = await b.reloader.take_in(actor)
    assert told.accepted is back
    assert bool(told.problems) is not back
    await a.live()
    assert a.among.overtaken is back
    assert (await a.store.beat(Heartbeat("c", TENANT), a.clock.now())).in_force is not None
    assert b.among.overtaken is not back
    assert newest == a.digest
