"""What is signed, and what is not: one broker's witnessing on a real ledger and a file, with time as an argument."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from broker.clock import SystemRng
from broker.daemon.turns import Turns
from broker.daemon.witnessing import Witnessing
from broker.issuance.gate import Gate
from broker.issuance.recovering import Recovering
from broker.stores.backup import back_up
from broker.stores.sqlite import SqliteStore
from tests.clock import START, ManualClock
from tests.issuance.world import TENANT
from tests.simulation.chance import Chance
from tests.simulation.witnesses import CONFIG, SimulatedWitness
from tests.stores.contract_trail import event
from tests.stores.make import Keys

HOUR = timedelta(hours=1)


class Broker:
    """As much of one as witnesses need."""

    def __init__(self, store: SqliteStore, witness: SimulatedWitness, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self.gate = Gate(HOUR, 100, HOUR)
        recovering = Recovering(store, self.gate, clock, SystemRng(), TENANT)
        turns = Turns(frozenset({"checkpoints"}), lambda: 0.0, shared=False)
        about = (CONFIG, witness.settings, store, recovering, self.gate, clock, SystemRng(), "w", turns)
        self.witnessing = Witnessing(*about, lambda settings: witness)

    async def something_happens(self) -> None:
        """And is signed and sent, a while later."""
        self.clock.advance(HOUR)
        await self.store.append([event()], self.clock.now())
        await self.witnessing.tick()
        for pump in self.witnessing._pumps.values():
            await pump.step()


async def test_on_a_ledger_that_was_put_back_beneath_it_a_broker_signs_nothing(tmp_path: Path) -> None:
    """F21, F35: what it signed would be of later than what the witness has seen, and hide it from every start."""
    tmp_path.chmod(0o700)
    file, copy = tmp_path / "ledger.sqlite3", tmp_path / "copy.sqlite3"
    witness, clock = SimulatedWitness(tmp_path, Chance(1)), ManualClock(START)
    store = await SqliteStore.open(file, Keys(), writer="w")
    first = Broker(store, witness, clock)
    await first.witnessing.start()
    await first.something_happens()
    back_up(file, copy)
    await first.something_happens()
    await store.close()
    seen = witness.seen_ms()
    shutil.copyfile(copy, file)

    store = await SqliteStore.open(file, Keys(), writer="v")
    ran_on = Broker(store, witness, clock)
    ran_on.gate.unread = ()  # it asked, when it began, and has seen nothing of later
    await ran_on.something_happens()
    assert (witness.seen_ms(), bool(ran_on.gate.recovery)) == (seen, True)
    started = Broker(store, witness, clock)
    await started.witnessing.start()
    assert started.gate.recovery == ran_on.gate.recovery
    await store.close()


async def test_while_a_witness_cannot_be_asked_nothing_is_signed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    witness, clock = SimulatedWitness(tmp_path, Chance(1)), ManualClock(START)
    store = await SqliteStore.open(tmp_path / "ledger.sqlite3", Keys(), writer="w")
    broker = Broker(store, witness, clock)
    await broker.witnessing.start()
    witness.away = True
    await broker.something_happens()
    assert (await store.trail_end(TENANT)).checkpoint_seq == 0
    witness.away = False
    await broker.something_happens()
    assert (await store.trail_end(TENANT)).checkpoint_seq
    assert broker.gate.recovery == "" and witness.seen_ms() > 0
    await store.close()
