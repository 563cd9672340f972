"""The way to the server ends at any message of any operation: what the caller is told is what is in the ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.clock import SystemClock
from broker.errors import BrokerError, NotReady, Reason
from broker.lease.machine import Event
from broker.ports.leases import Attempt, EndCause, Selector
from broker.ports.replicas import Heartbeat
from broker.ports.suspensions import Kind
from broker.ports.tasks import TaskState
from broker.stores import postgres_connection, postgres_database, postgres_readers
from broker.stores.audit_reader import AuditReader
from broker.stores.postgres import PostgresStore
from broker.stores.postgres_clock import ServerClock
from tests.patience import until
from tests.stores.conftest import LedgerDatabase
from tests.stores.contract_access import enough
from tests.stores.contract_suspensions import lift, members, stop
from tests.stores.make import ALICE, TENANT, Keys, at, filing, intent, new_task, redeeming, vote
from tests.stores.severed import How, Severed, Towards

pytestmark = [pytest.mark.slow, pytest.mark.long]
# Told of what the ledger does not have; and of what nobody knows whether it has.
MANY = 1_000_000
CUTS = 500
NOTHING, UNKNOWN = Reason.STORE_UNAVAILABLE, Reason.COMMIT_UNKNOWN
Act = Callable[[], Awaitable[object]]
# Of one operation: what has to be there before, and the operation, under a name of its own.
Prepare = Callable[[PostgresStore, str], Awaitable[Act]]


async def granted(store: PostgresStore, name: str) -> Attempt:
    await store.start_task(new_task(f"task-{name}", max_open=MANY))
    return (await store.open_intent(intent(name, task=f"task-{name}", max_live_leases=MANY))).attempt


async def active(store: PostgresStore, name: str) -> Attempt:
    attempt = await granted(store, name)
    await store.activate(TENANT, attempt.id, attempt.epoch, at(61), at(32), {}, at(2))
    return attempt


async def starting(store: PostgresStore, name: str) -> Act:
    return lambda: store.start_task(new_task(f"task-{name}", max_open=MANY))


async def intending(store: PostgresStore, name: str) -> Act:
    await store.start_task(new_task(f"task-{name}", max_open=MANY))
    return lambda: store.open_intent(intent(name, task=f"task-{name}", max_live_leases=MANY))


async def noting(store: PostgresStore, name: str) -> Act:
    attempt = await granted(store, name)
    return lambda: store.checkpoint(TENANT, attempt.id, attempt.epoch, {"accessor": name}, None, at(2))


async def activating(store: PostgresStore, name: str) -> Act:
    attempt = await granted(store, name)
    return lambda: store.activate(TENANT, attempt.id, attempt.epoch, at(61), at(32), {}, at(2))


async def confirming(store: PostgresStore, name: str) -> Act:
    attempt = await active(store, name)
    return lambda: store.confirm_delivery(TENANT, attempt.lease_id, ALICE, attempt.id, at(3))


async def ending(store: PostgresStore, name: str) -> Act:
    attempt = await active(store, name)
    selector = Selector(TENANT, lease_id=attempt.lease_id)
    return lambda: store.end_leases(selector, EndCause.RELEASED, ALICE, at(4))


async def completing(store: PostgresStore, name: str) -> Act:
    await active(store, name)
    return lambda: store.end_task(TENANT, f"task-{name}", TaskState.COMPLETED, EndCause.COMPLETED, ALICE, at(4))


async def revoked(store: PostgresStore, name: str) -> Act:
    attempt = await active(store, name)
    await store.end_leases(Selector(TENANT, lease_id=attempt.lease_id), EndCause.RELEASED, ALICE, at(4))
    claims = await store.claim_due("bao", at(5), 1_000, timedelta(seconds=30))
    (claim,) = [each for each in claims if each.id == attempt.id]
    return lambda: store.record_revocation(claim, Event.REVOKE_CONFIRMED, at(6), at(7), "", False)


async def asking(store: PostgresStore, name: str) -> Act:
    await store.start_task(new_task(f"task-{name}", max_open=MANY))
    return lambda: store.open_access_request(filing(name, task=f"task-{name}", max_pending=MANY))


async def approving(store: PostgresStore, name: str) -> Act:
    await store.start_task(new_task(f"task-{name}", max_open=MANY))
    asked = filing(name, task=f"task-{name}", max_pending=MANY)
    await store.open_access_request(asked)
    return lambda: store.vote(TENANT, asked.id, asked.digest, vote(), enough)


async def redeemed(store: PostgresStore, name: str) -> Act:
    await approving_done(store, name)
    filed = await store.get_access_request(TENANT, f"areq-{name}", ALICE)
    return lambda: store.open_intent(redeeming(filed, name, task=f"task-{name}", max_live_leases=MANY))


async def approving_done(store: PostgresStore, name: str) -> None:
    await (await approving(store, name))()


async def suspending(store: PostgresStore, name: str) -> Act:
    await active(store, name)
    return lambda: store.suspend(stop(Kind.TASK, f"task-{name}", name), members)


async def resuming(store: PostgresStore, name: str) -> Act:
    await (await suspending(store, name))()
    return lambda: store.resume(lift(name=name))


async def following(store: PostgresStore, name: str) -> Act:
    said = Heartbeat("writer-1", TENANT, name.ljust(64, "d"))
    return lambda: store.put_in_force(said, at(2), deliberate=False)


async def beating(store: PostgresStore, name: str) -> Act:
    return lambda: store.beat(Heartbeat("writer-1", TENANT), at(2))


OPERATIONS: dict[str, Prepare] = {
    each.__name__: each
    for each in (
        *(starting, intending, noting, activating, confirming, ending, completing, revoked),
        *(asking, approving, redeemed, suspending, resuming, following, beating),
    )
}


@dataclass
class Cut:
    """A store whose way to the server can be cut, and the server itself."""

    store: PostgresStore
    way: Severed
    database: LedgerDatabase
    names: int = 0

    def there(self) -> tuple[int, int]:
        """How many batches and how many audit records there are."""
        with self.database.session() as session:
            row = session.execute("SELECT number, coalesce((SELECT max(seq) FROM audit), 0) FROM last_batch").fetchone()
        assert row is not None
        return int(str(row[0])), int(str(row[1]))

    def since(self, then: tuple[int, int]) -> tuple[int, int]:
        batches, records = self.there()
        return batches - then[0], records - then[1]

    async def prepared(self, prepare: Prepare) -> Act:
        self.names += 1
        return await prepare(self.store, str(self.names))

    async def whole(self, prepare: Prepare) -> tuple[int, int]:
        """What the operation adds where nothing happens."""
        act, then = await self.prepared(prepare), self.there()
        await act()
        return self.since(then)

    async def cut(self, prepare: Prepare, number: int, towards: Towards, how: How, whole: tuple[int, int]) -> bool:
        """Once; False: it was over before."""
        act, then = await self.prepared(prepare), self.there()
        self.way.at(number, towards, how)
        told = None
        try:
            await act()
        except BrokerError as error:
            told = error
        came = self.way.calm()
        where = f"{prepare.__name__}: {how.value} at message {number} to the {towards.value}"
        if told is None:
            assert self.since(then) == whole, where
            return came
        assert isinstance(told, NotReady) and told.reason is NOTHING and told.hint, (where, told)
        assert self.since(then) == (0, 0), (where, told)
        self.store._writing_end._again = 0.0  # type: ignore[attr-defined]  # as if the pause were over
        await act()
        assert self.since(then) == whole, where
        return came

    def held(self) -> tuple[int, int, int]:
        """Threads and descriptors of this process, and sessions of the server, that are the store's."""
        with self.database.session() as session:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'brokerd %'"
            row = session.execute(query).fetchone()
        assert row is not None
        threads = [each for each in threading.enumerate() if each.name != "severed"]
        return len(threads), len(list(Path("/proc/self/fd").iterdir())), int(str(row[0]))


@pytest.fixture
def way(ledger_database: LedgerDatabase) -> Iterator[Severed]:
    way = Severed(ledger_database.server.host, ledger_database.server.port)
    yield way
    way.close()


@pytest.fixture
async def cut(ledger_database: LedgerDatabase, way: Severed) -> AsyncIterator[Cut]:
    store = await PostgresStore.open(ledger_database.through(way.port), Keys(), "writer-1", ServerClock(SystemClock()))
    yield Cut(store, way, ledger_database)
    await store.close()


@pytest.mark.parametrize("towards", Towards)
@pytest.mark.parametrize(
    ("operation", "how"),
    [*((each, How.RESET) for each in OPERATIONS), ("intending", How.HALF), ("suspending", How.HALF)],
)
async def test_it_is_there_once_or_told_not_to_be_wherever_the_session_is_reset(
    cut: Cut, operation: str, how: How, towards: Towards
) -> None:
    """F20."""
    prepare = OPERATIONS[operation]
    whole = await cut.whole(prepare)
    number = 1
    while await cut.cut(prepare, number, towards, how, whole):
        number += 1
    assert number > 5
    with AuditReader(cut.database.address) as trail:
        assert not list(trail.verify(Keys().find))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second for an answer; the server ends who is silent in the middle of a batch before that."""
    for module in (postgres_connection, postgres_database, postgres_readers):
        monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setitem(postgres_connection._SESSION, "idle_in_transaction_session_timeout", "200ms")


@pytest.mark.parametrize("towards", Towards)
async def test_it_is_there_once_or_told_not_to_be_wherever_nothing_arrives_any_more(
    impatient: None, cut: Cut, towards: Towards
) -> None:
    """F20: half-open. What tells it is time alone, some seconds each time: every fifth message has to do."""
    whole, number = await cut.whole(intending), 1
    while await cut.cut(intending, number, towards, How.SILENCE, whole):
        number += 5
    assert number > 5


async def test_nothing_is_left_of_many_cuts(cut: Cut) -> None:
    """Neither threads nor descriptors of brokerd, nor sessions of the server."""
    whole = await cut.whole(intending)
    await asyncio.gather(*[cut.store.get_task(TENANT, "task-1") for _ in range(20)])  # readers have their sessions
    held = cut.held()
    for number in range(CUTS):
        await cut.cut(intending, 1 + number % 50, Towards.CLIENT if number % 2 else Towards.SERVER, How.RESET, whole)
    until(lambda: all(now <= before for now, before in zip(cut.held(), held, strict=True)))


@pytest.fixture
async def direct(ledger_database: LedgerDatabase) -> AsyncIterator[Cut]:
    """Nothing is between; what fails is what brokerd itself has of the session."""
    store = await ledger_database.open()
    yield Cut(store, Severed(ledger_database.server.host, ledger_database.server.port), ledger_database)
    await store.close()


@pytest.mark.parametrize("heard", [False, True])
async def test_a_session_of_which_libpq_knows_no_harm_is_given_up_all_the_same(
    direct: Cut, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """F20: as psycopg tells of a reset while a pipeline is being sent. The session calls itself sound for ever after.

    ``heard``: what was being sent is done, and its answer is what was lost.
    """
    whole, waits, number = await direct.whole(intending), psycopg.Connection.wait, 1
    while True:
        left = number

        def wait(session: Any, gen: Any, *arguments: Any) -> Any:
            nonlocal left
            if threading.current_thread().name != "ledger-writer":
                return waits(session, gen, *arguments)
            left -= 1
            found = waits(session, gen, *arguments) if left or heard else None
            if left == 0:
                raise psycopg.OperationalError("connection socket closed")
            return found

        act, then = await direct.prepared(intending), direct.there()
        refused = False
        with monkeypatch.context() as unheard:
            unheard.setattr(psycopg.Connection, "wait", wait)
            try:
                await act()
            except NotReady as told:
                refused = True
                assert told.reason is NOTHING and direct.since(then) == (0, 0), number
        direct.store._writing_end._again = 0.0  # type: ignore[attr-defined]  # as if the pause were over
        if refused:
            await act()
        assert direct.since(then) == whole, number
        await (await direct.prepared(starting))()  # and it goes on
        if left > 0:
            break
        number += 1
    assert number > 3
