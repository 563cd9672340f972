"""The running connectors: built from the deploy set, replaced when their definition changes.

A connector that living attempts still need is never taken away: a set that drops one is refused,
because what cannot be reached cannot be revoked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from broker.errors import BrokerError, InvalidInput, Reason
from broker.lease.breaker import Breakers
from broker.lease.root import Roots, Work
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.ports.deploys import ConnectorSpec

log = structlog.get_logger("broker.connectors")

Build = Callable[[ConnectorSpec], Connector]


class ConnectorPool:
    """Connectors by name. Not locked: it belongs to the event loop."""

    def __init__(self, build: Build, roots: Roots, clock: Clock, breakers: Breakers | None = None) -> None:
        self._build = build
        self._roots = roots
        self._breakers = breakers or Breakers()
        self._clock = clock
        self._running: dict[str, tuple[str, Connector]] = {}

    def find(self, name: str) -> Connector | None:
        """The connector of this name, None if there is none."""
        entry = self._running.get(name)
        return None if entry is None else entry[1]

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._running)

    def prepare(self, specs: Mapping[str, ConnectorSpec], in_use: frozenset[str]) -> dict[str, tuple[str, Connector]]:
        """What the pool would run for ``specs``; nothing changes yet. Raises InvalidInput (CONFIG_INVALID)."""
        dropped = sorted(in_use - set(specs))
        if dropped:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"connectors.yaml: connector {', '.join(dropped)} is gone, but living leases still need it.",
                hint="Keep it until `broker_live_leases` says that they have ended; templates may already leave it.",
                metadata={"connectors": ",".join(dropped)},
            )
        prepared = {}
        for name, spec in specs.items():
            running = self._running.get(name)
            unchanged = running is not None and running[0] == spec.digest
            prepared[name] = running if running is not None and unchanged else (spec.digest, self._build(spec))
        return prepared

    async def activate(self, prepared: dict[str, tuple[str, Connector]]) -> None:
        """Run what :meth:`prepare` made. Calls under way keep the connector they started with."""
        before, self._running = self._running, prepared
        self._roots.only(prepared)
        self._breakers.only(prepared)
        kept = {id(connector) for _, connector in prepared.values()}
        for _, connector in before.values():
            if id(connector) not in kept:
                await connector.close()

    async def tend(self) -> None:
        """Let every connector keep the broker's own credential alive; one that cannot stops no other."""
        for name, (_, connector) in list(self._running.items()):
            try:
                await connector.tend()
                self._roots.works(name, Work.TEND)
            except BrokerError as failure:
                if failure.reason is Reason.UPSTREAM_ROOT_REFUSED:
                    self._roots.refused(name, str(failure), Work.TEND, self._clock.now())
                log.error("a connector could not be tended", connector=name, reason=failure.reason, error=str(failure))

    async def close(self) -> None:
        """Close every connector."""
        await self.activate({})
