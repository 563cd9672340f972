"""Three real daemons on one real PostgreSQL, under load: killed, stopped, cut off, and promoted over.

At the end of each story the upstream's own log is held against the ledger and against what the agents were given:
nothing leaked, nothing unaudited, nothing double.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from broker.ports.replicas import REPLICA_DEAD_AFTER
from broker.revocation.revoker import CLAIM_FOR
from broker.stores.postgres_connection import PATIENCE
from integration.replicas.wires import Order
from integration.replicas.world import REPLICAS, World, pause, world
from tests.kill.loop import deliveries
from tests.patience import until

SEED = 1
KILLS = 12
# Known to be dead, and then a beat and a transaction on a busy machine.
SOON = REPLICA_DEAD_AFTER.total_seconds() + 6


@pytest.fixture
def three(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


def test_one_at_a_time_is_killed(three: World) -> None:
    """F2, F3, F4, F14, F42: ``kill -9`` of any of them, again and again, while the others go on."""
    chance = random.Random(SEED)
    with three.load(SEED) as agents:
        for _ in range(KILLS):
            number = chance.randrange(REPLICAS)
            if chance.random() < 0.8:  # else while it starts
                three.daemons[number].until_ready()
            pause(chance.uniform(0.2, 1.5), agents)
            three.kill(number)
    verdict = three.judge()
    assert verdict.figures["delivered"] > KILLS


def test_one_is_stopped_for_longer_than_its_claims(three: World) -> None:
    """F17, F18, F19: what it had is others' by then, and nothing that it writes late changes a row."""
    with three.load(SEED) as agents:
        pause(2, agents)
        with three.stopped(0):
            pause(CLAIM_FOR.total_seconds() + 5, agents)
            stopped_at = _last_epochs(three)
        pause(3, agents)
    three.judge()
    assert _went_back(three, stopped_at) == []


def test_what_a_dead_one_had_in_hand_is_others_long_before_its_claims_run_out(three: World) -> None:
    """F2, F18: once it is known to be dead, which takes as long as it is not heard."""
    with three.load(SEED) as agents:
        for _ in range(10):
            pause(1, agents)
            killed = time.monotonic()
            dead, held = three.kill_for_good(0)
            if held:
                break
            three.start(0)
        assert held, "it was killed ten times and never had anything in hand"
        while three.in_hand_of(dead):
            pause(0.2, agents)
            assert time.monotonic() - killed < SOON, f"{three.in_hand_of(dead)} of {held} are still a dead one's"
        print(f"{held} taken over {time.monotonic() - killed:.1f} s after the kill")
        three.start(0)
    three.judge()


def test_one_is_cut_off_from_the_database(three: World) -> None:
    """F20: by reset, and by silence; at any moment of a transaction."""
    chance = random.Random(SEED)
    with three.load(SEED) as agents:
        for order in (Order.CUT, Order.HANG, Order.CUT, Order.HANG):
            number = chance.randrange(REPLICAS)
            (way,) = three.ways[number]
            pause(chance.uniform(0.5, 1.5), agents)
            three.wires.order(order, way)
            pause(4 if order is Order.CUT else 12, agents)
            three.wires.order(Order.PASS, way)
    three.judge()


def test_the_database_stops_and_says_nothing(three: World) -> None:
    """F20: SIGSTOP of the whole server, longer than an answer is waited for; afterwards all goes on by itself."""
    with three.load(SEED) as agents:
        for _ in range(2):
            pause(2, agents)
            with three.primary.stopped():
                pause(PATIENCE + 5, agents)
                until(lambda: not any(daemon.ready() for daemon in three.daemons))
            again = time.time()
            for daemon in three.daemons:
                daemon.until_ready()
            print(f"ready again {time.time() - again:.1f} s after the server went on")
    three.judge()


def test_the_standby_is_promoted(tmp_path: Path) -> None:
    """F21: the primary is lost, and nothing that was answered is lost with it."""
    with world(tmp_path, standby=True) as made:
        assert made.standby is not None
        with made.load(SEED) as agents:
            pause(4, agents)
            made.primary.kill()
            lost = time.time()
            made.standby.promote()
            pause(15, agents)
            again = until(lambda: _delivered_since(made, lost))
        made.judge()
        print(f"grants again {min(again) - lost:.1f} s after the primary was lost")


def test_the_primary_is_handed_over_by_hand_and_left_running(tmp_path: Path) -> None:
    """F20, F21: nobody ends the sessions with it, and nothing of it is read once the other one is written to."""
    with world(tmp_path, standby=True) as made:
        assert made.standby is not None
        with made.load(SEED) as agents:
            pause(4, agents)
            made.primary.take_no_more_writes()
            pause(2, agents)
            handed_over = time.time()
            made.standby.promote()
            pause(15, agents)
            again = until(lambda: _delivered_since(made, handed_over))
            late = "SELECT count(*) FROM attempts WHERE due_at < (extract(epoch FROM now() - interval '10 s') * 1000)"
            with psycopg.connect(made.dsn) as connection:
                assert connection.execute(late).fetchall() == [(0,)]
        made.judge()
        print(f"grants again {min(again) - handed_over:.1f} s after the hand-over")


def _delivered_since(made: World, moment: float) -> list[float]:
    """When agents were given something since then (seconds since the epoch)."""
    return [at for each in deliveries(made.directory / "agents.jsonl") if (at := each.at_ms / 1000) > moment]


def _last_epochs(three: World) -> dict[str, tuple[int, str]]:
    with psycopg.connect(three.dsn) as connection:
        rows = connection.execute("SELECT id, epoch, state FROM attempts").fetchall()
    return {str(id_): (int(epoch), str(state)) for id_, epoch, state in rows}


def _went_back(three: World, before: dict[str, tuple[int, str]]) -> list[str]:
    """Attempts of which a late write undid something: an epoch that fell, or an end that was taken back."""
    over = {"REVOKED", "EXPIRED", "VOID"}
    after = _last_epochs(three)
    return [
        id_
        for id_, (epoch, state) in before.items()
        if id_ in after and (after[id_][0] < epoch or (state in over and after[id_][1] != state))
    ]
