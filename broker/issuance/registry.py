"""The registry in force as people see it: each entry, and what is alive of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.errors import BrokerError, NotFound, Reason
from broker.identity.agent import Agent, AgentPattern
from broker.identity.spiffe_id import SpiffeId
from broker.issuance.caller import OperatorCaller
from broker.ports.views import Alive, ViewStore

_NOTHING = Alive()


@dataclass(frozen=True, slots=True)
class Registered:
    """One entry, or the one workload that was asked about, and what is alive of it."""

    entry: Agent | AgentPattern
    alive: Alive
    owner_enabled: bool
    denied: bool  # the one workload; never so of an entry with a pattern
    pattern: str  # by which it is registered; empty where by its SPIFFE ID


class RegistryDesk:
    """What people see of agents."""

    def __init__(self, store: ViewStore) -> None:
        self._store = store

    async def list(self, caller: OperatorCaller, after: str, limit: int) -> tuple[Sequence[Registered], str]:
        """A page of the entries, by name, and the name to continue after (empty: the end)."""
        named = [(name, entry) for name, entry in sorted(_entries(caller).items()) if name > after]
        alive = self._by_entry(caller, await self._store.alive(caller.tenant))
        page = [self._told(caller, entry, alive.get(name, _NOTHING)) for name, entry in named[:limit]]
        return page, named[limit - 1][0] if len(named) > limit else ""

    async def get(self, caller: OperatorCaller, agent: str) -> Registered:
        """What is registered of a SPIFFE ID, or under an entry's name. Raises NotFound (AGENT_NOT_REGISTERED)."""
        alive = await self._store.alive(caller.tenant)
        entry = _entries(caller).get(agent)
        if entry is not None:
            return self._told(caller, entry, self._by_entry(caller, alive).get(agent, _NOTHING))
        found = _workload(caller, agent)
        if found is None:
            raise NotFound(
                Reason.AGENT_NOT_REGISTERED,
                f"{agent[:200]!a} is neither the SPIFFE ID of a registered agent nor the name of an entry.",
                hint="`broker admin agents` lists the entries in force.",
                metadata={"agent": agent[:200]},
            )
        return self._told(caller, found, alive.get(agent, _NOTHING))

    def _told(self, caller: OperatorCaller, entry: Agent | AgentPattern, alive: Alive) -> Registered:
        deploy, now = caller.deploy, caller.now
        pattern = next(
            (str(each.pattern) for each in deploy.registry.patterns if each.principal == entry.principal), ""
        )
        denied = isinstance(entry, Agent) and deploy.denied.denies_lease(str(entry.spiffe_id), "", now)
        return Registered(entry, alive, entry.owner.enabled(now), denied, pattern)

    def _by_entry(self, caller: OperatorCaller, alive: Mapping[str, Alive]) -> Mapping[str, Alive]:
        """What the workloads of each entry have together; who is not registered is of none."""
        found: dict[str, Alive] = defaultdict(Alive)
        for holder, has in alive.items():
            agent = _workload(caller, holder)
            if agent is not None:
                found[agent.principal] = found[agent.principal].plus(has)
        return found


def _entries(caller: OperatorCaller) -> Mapping[str, Agent | AgentPattern]:
    registry = caller.deploy.registry
    return {entry.principal: entry for entry in (*registry, *registry.patterns)}


def _workload(caller: OperatorCaller, holder: str) -> Agent | None:
    try:
        return caller.deploy.registry.find(SpiffeId.parse(holder))
    except BrokerError:  # no SPIFFE ID (a person's lease), or nobody's
        return None
