"""How an agent calls: at whichever replica it is sent to, with little patience, and never sure what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broker.errors import BrokerError, Defect, Reason
from broker.identity.agent import Agent
from broker.issuance.caller import Caller
from broker.issuance.issue import Grant
from tests.simulation.broker import SimulatedBroker
from tests.simulation.leaks import look_at
from tests.simulation.process import Gone
from tests.simulation.world import World

# What one RPC does at the broker that it reaches, for who is seen to call.
Work = Callable[[SimulatedBroker, Caller], Coroutine[Any, Any, Any]]

# Nothing that this replica can do anything about at once.
_ELSEWHERE = {Reason.STORE_UNAVAILABLE, Reason.REVOKER_STALLED, Reason.REPLICA_UNHEARD, Reason.COMMIT_UNKNOWN}

# In seconds. Longer than an issue may take; nobody waits for a broker that is stopped until it goes on.
_DEADLINE = 12.0


class Client:
    """One agent's."""

    def __init__(self, world: World, who: Agent) -> None:
        self._world = world
        self._who = who

    async def call(self, name: str, work: Work, *, impatient: bool = False) -> Any:
        """The answer, or None: refused, given up, or the broker is gone."""
        return await self._call(self._world.any_broker(), name, work, impatient)

    async def call_twice(self, name: str, one: Work, other: Work) -> Any:
        """The answer to the first of two at once, which may reach two replicas."""
        here, there = self._world.any_broker(), self._world.any_broker()
        self._world.chance.told[f"{name} on two replicas at once"] += here is not there
        first, _ = await asyncio.gather(self._call(here, name, one), self._call(there, name, other))
        return first

    async def _call(self, broker: SimulatedBroker | None, name: str, work: Work, impatient: bool = False) -> Any:
        if broker is None:
            await self._world.later(0.5, 0.5)
            return None
        patience = self._patience() if impatient else _DEADLINE
        try:
            async with asyncio.timeout(patience):
                answer = await self._world.ask(work(broker, self._world.caller(self._who, broker)), broker)
        except Gone:
            self._world.tell(name, "gone")
            return None
        except TimeoutError:
            self._world.tell(name, "given up")
            return None
        except Defect:
            raise
        except BrokerError as refused:
            look_at("what a caller is told", str(refused).encode())
            self._world.chance.told[f"refused: {refused.reason}"] += 1
            self._world.tell(name, refused.reason)
            if refused.reason in _ELSEWHERE:
                await asyncio.sleep(self._world.chance.between(0, 2))
            return None
        self._world.tell(name, "OK")
        if isinstance(answer, Grant) and answer.credential is not None and answer.lease is not None:
            self._world.delivered(answer.lease.attempt_id, broker.process)
        return answer

    def _patience(self) -> float:
        chance = self._world.chance
        return chance.between(0, 0.3) if chance.sometimes("caller gave up", 0.08) else _DEADLINE
