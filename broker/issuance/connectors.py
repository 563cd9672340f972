"""The connectors in force as people see them: what each promises, and what an examination of its upstream finds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from broker.errors import NotFound, Reason
from broker.issuance.caller import OperatorCaller
from broker.issuance.verdicts import doubts_of_template
from broker.lease.breaker import Breakers
from broker.lease.credential import Contract
from broker.ports.clock import Clock
from broker.ports.connectors import Connector, Doubt, Severity
from broker.ports.deploys import ConnectorSpec, DeploySet

log = structlog.get_logger("broker.connectors")

# How long one examination may take: some thirty questions, each answered in milliseconds.
EXAMINE_WITHIN = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Shown:
    """One connector of the set. ``contract`` None: it does not run."""

    spec: ConnectorSpec
    contract: Contract | None
    templates: tuple[str, ...]
    circuit: str = ""  # why its circuit is open; empty: it is closed


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found, errors first."""

    connector: Shown
    doubts: tuple[Doubt, ...]
    at: datetime


class ConnectorDesk:
    """What people see of connectors. ``connectors`` finds a running one by name."""

    def __init__(
        self,
        connectors: Callable[[str], Connector | None],
        clock: Clock,
        within: timedelta = EXAMINE_WITHIN,
        breakers: Breakers | None = None,
    ) -> None:
        self._connectors = connectors
        self._clock = clock
        self._within = within
        self._breakers = breakers or Breakers()
        # Whoever asks while an examination is under way gets its result: nobody can have the upstream asked a lot.
        self._under_way: dict[str, asyncio.Task[Sequence[Doubt]]] = {}

    def list(self, caller: OperatorCaller) -> Sequence[Shown]:
        """All of the set in force, by name."""
        return [self._shown(caller.deploy, name) for name in sorted(caller.deploy.connectors)]

    def get(self, caller: OperatorCaller, name: str) -> Shown:
        """One of them. Raises NotFound (CONNECTOR_NOT_FOUND)."""
        if name not in caller.deploy.connectors:
            known = ", ".join(sorted(caller.deploy.connectors)) or "none"
            raise NotFound(
                Reason.CONNECTOR_NOT_FOUND,
                f"there is no connector {name!a} in the deploy set in force.",
                hint=f"There is: {known}.",
                metadata={"connector": ascii(name)[:128]},
            )
        return self._shown(caller.deploy, name)

    async def examine(self, caller: OperatorCaller, name: str) -> Sequence[Examined]:
        """One connector, or with an empty ``name`` all of them at once, each for a bounded time.

        Raises NotFound (CONNECTOR_NOT_FOUND).
        """
        wanted = [self.get(caller, name)] if name else self.list(caller)
        return await asyncio.gather(*(self._examined(each, caller.deploy) for each in wanted))

    def _shown(self, deploy: DeploySet, name: str) -> Shown:
        running = self._connectors(name)
        templates = sorted(each.name for each in deploy.templates.values() if each.connector == name)
        contract, circuit = None if running is None else running.contract, self._breakers.told().get(name, "")
        return Shown(deploy.connectors[name], contract, tuple(templates), circuit)

    async def _examined(self, shown: Shown, deploy: DeploySet) -> Examined:
        connector = self._connectors(shown.spec.name)
        doubts = [_NOT_RUNNING] if connector is None else [*await self._asked(connector), *_templates(shown, deploy)]
        if shown.circuit:
            doubts.append(Doubt(Severity.ERROR, f"For now {shown.circuit}.", _CIRCUIT))
        doubts.sort(key=lambda each: each.severity is not Severity.ERROR)
        return Examined(shown, tuple(doubts), self._clock.now())

    async def _asked(self, connector: Connector) -> Sequence[Doubt]:
        under_way = self._under_way.get(connector.name)
        if under_way is None:
            under_way = self._under_way[connector.name] = asyncio.create_task(self._ask(connector))
            under_way.add_done_callback(lambda _: self._under_way.pop(connector.name, None))
        return await asyncio.shield(under_way)  # one who asks and leaves does not take it away from the others

    async def _ask(self, connector: Connector) -> Sequence[Doubt]:
        try:
            async with asyncio.timeout(self._within.total_seconds()):
                return await connector.examine()
        except TimeoutError:
            return [_too_slow(self._within)]
        except Exception as defect:
            log.exception("an examination failed", connector=connector.name)
            return [_failed(type(defect).__name__)]


def _templates(shown: Shown, deploy: DeploySet) -> Iterator[Doubt]:
    if shown.contract is not None:
        for name in shown.templates:
            yield from doubts_of_template(deploy.templates[name], shown.contract)


_NOT_RUNNING = Doubt(
    Severity.ERROR,
    "It does not run: nothing is issued by it, and nothing that it issued is ended.",
    "See why in brokerd's log; then `broker reload`, or start brokerd again.",
)


_CIRCUIT = "Look at the upstream and the network between; it is tried again by itself, at least once a minute."


def _too_slow(within: timedelta) -> Doubt:
    return Doubt(
        Severity.ERROR,
        f"Its upstream did not answer every question within {within.total_seconds():g} s.",
        "Look at the upstream and the network between: issuing and revoking are as slow.",
    )


def _failed(kind: str) -> Doubt:
    return Doubt(
        Severity.ERROR,
        f"The examination itself failed ({kind}), which is a bug.",
        "Report it; brokerd's log has the rest.",
    )
