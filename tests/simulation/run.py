"""One run from one seed: live for so many steps, heal everything, let time pass, and look at what is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from broker.errors import Defect, Reason
from broker.lease.machine import TERMINAL
from tests.simulation.agents import Life
from tests.simulation.broken import Broken
from tests.simulation.dealing import Kind, kind_of
from tests.simulation.emergencies import emergencies, reviewers
from tests.simulation.leaks import look_at_logs
from tests.simulation.nemesis import TO_ALL, TO_EACH, put_back
from tests.simulation.people import operators, releasers
from tests.simulation.servers import server_clocks
from tests.simulation.virtual import VirtualLoop
from tests.simulation.world import AGENTS, World

# After everything is healed: longer than any lease, any claim and any pause between two tries.
_HEALING_SECONDS = 1800.0
# What has ended a moment ago is told by a tick.
_TELLING_SECONDS = 10.0
# Why a gate is closed while something that it needs is away.
_PASSES = {Reason.STORE_UNAVAILABLE, Reason.REVOKER_STALLED, Reason.REPLICA_UNHEARD, Reason.LEDGER_FULL}
# After that: longer than an inventory is waited for, and what it shows is young.
_SWEEPING_SECONDS = 90.0


@dataclass(frozen=True)
class Run:
    """What came of it. ``broken`` says which promise was not kept, and after how many steps; empty: all were."""

    seed: int
    replicas: int
    restores: bool
    asked: int  # steps, before everything is healed
    steps: int
    seconds: float  # simulated
    trace: str
    broken: str
    told: Counter[str]
    attempts: int


def simulate(seed: int, steps: int, replicas: int = 0, *, restores: bool | None = None) -> Run:
    """Live in one world, of the kind that its seed deals. The same arguments give the same run.

    ``replicas``, ``restores``: where they are not 0 and not None, so many and that, whatever the seed says.
    """
    dealt = kind_of(seed)
    kind = Kind(replicas or dealt.replicas, dealt.restores if restores is None else restores)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="jit-sim-", dir=_memory()) as directory:
        world = World(loop, seed, Path(directory), kind)
        look_at_logs(world.fail)
        try:
            loop.run_until_complete(_run(world, steps))
        except Broken as broken:
            world.fail(broken)
        except Defect as defect:
            world.fail(Broken(f"a caller met a defect: {defect}"))
        finally:
            lasted = loop.steps
            _tear_down(world)
    return Run(
        seed=seed,
        replicas=kind.replicas,
        restores=kind.restores,
        asked=steps,
        steps=lasted,
        seconds=loop.time(),
        trace=world.trace.hexdigest(),
        broken=str(world.broken or ""),
        told=world.chance.told,
        attempts=len(world.checks.before | world.checks.ledger.attempts),
    )


async def _run(world: World, steps: int) -> None:
    def going() -> bool:
        return world.loop.steps < steps and world.broken is None

    world.steps = steps
    await world.start()
    lives = [asyncio.create_task(Life(world, who).live(going)) for who in AGENTS]
    lives += [
        asyncio.create_task(each(world, going))
        for each in (operators, releasers, emergencies, reviewers, *TO_ALL, server_clocks)
    ]
    lives += [asyncio.create_task(each(world, replica, going)) for replica in world.replicas for each in TO_EACH]
    await _first(world, asyncio.gather(*lives))
    if world.broken is None:
        world.check_ledger()  # as it is in the middle of it all
        await _heal(world)
        _all_grant_again(world)
        world.checks.at_the_end()
        world.check_ledger()


async def _heal(world: World) -> None:
    world.chance.calm = True
    if world.witness is not None and (old := world.backups.old()):
        await put_back(world, old[-1], beneath=False)
    await world.start()
    begun = world.loop.time()
    while world.broken is None and (passed := world.loop.time() - begun) < _HEALING_SECONDS:
        if passed > _SWEEPING_SECONDS:
            world.checks.healed_for_a_while()
            if all(known.state in TERMINAL for known in world.checks.ledger.attempts.values()):
                await asyncio.sleep(_TELLING_SECONDS)
                return
        await asyncio.sleep(10)


def _all_grant_again(world: World) -> None:
    """Of what is well again, no broker says that it is not. Raises Broken. (A clock may be in doubt for years.)"""
    for replica in world.replicas:
        broker = replica.broker
        closed = None if broker is None else broker.gate.why_closed(broker.clock.now())
        if closed is not None and closed.reason in _PASSES:
            raise Broken(f"{replica.name} grants nothing, and nothing is wrong any more: {closed}")


async def _first(world: World, lives: asyncio.Future[object]) -> None:
    """Until all have lived, or a promise is broken."""
    done, _ = await asyncio.wait({lives, world.ended}, return_when=asyncio.FIRST_COMPLETED)
    if lives in done:
        lives.result()
    else:
        lives.cancel()


def _tear_down(world: World) -> None:
    world.loop.set_exception_handler(lambda loop, context: None)
    world.kill()
    for task in asyncio.all_tasks(world.loop):
        task.cancel()
    world.loop.run_until_complete(asyncio.sleep(0))
    if world.checks.connection is not None:
        world.checks.connection.close()
    world.loop.close()
    gc.collect()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
