"""Webhooks, wired: one pump per destination of ``notify``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta

from broker.audit.cloud_event import source, wanted
from broker.audit.event import EventType
from broker.config import Config, Webhook
from broker.metrics import WebhookTally
from broker.ports.clock import Clock, Rng
from broker.ports.deploys import DeploySet
from broker.ports.lease_store import LeaseStore
from broker.references import resolve
from broker.webhooks.pump import Pump
from broker.webhooks.sender import Sender
from broker.webhooks.signing import check_secret


def untold_break_glass(deploy: DeploySet, notify: Mapping[str, Webhook]) -> list[str]:
    """The alarm where glass can be broken and no destination would tell those who would have approved."""
    if not deploy.break_glass or any(wanted(each.events, EventType.BREAK_GLASS_USED) for each in notify.values()):
        return []
    named = ", ".join(sorted(deploy.break_glass))
    return [f"nobody is told when glass is broken on {named}: no destination of notify takes break_glass.used"]


class Notifier:
    """The pumps. Each runs by itself: a receiver that hangs holds up nobody else."""

    def __init__(self, config: Config, store: LeaseStore, clock: Clock, rng: Rng) -> None:
        """Raises InvalidInput (CONFIG_INVALID) for a secret that is none, OSError for a CA file that cannot be read."""
        self._running = False
        for webhook in config.notify.values():
            for reference in webhook.secrets:
                check_secret(resolve(reference), reference)
        self._senders = {name: Sender(webhook, resolve, clock) for name, webhook in config.notify.items()}
        self._pumps = {
            name: Pump(
                name,
                webhook.events,
                source(config.trust_domain, config.tenant),
                self._senders[name].send,
                store,
                clock,
                rng,
                config.tenant,
            )
            for name, webhook in config.notify.items()
        }

    async def run(self) -> None:
        """Deliver until cancelled, from where whoever did it before came to."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                for name, pump in self._pumps.items():
                    group.create_task(pump.run(), name=f"webhook {name}")
        finally:
            self._running = False

    async def start(self) -> None:
        """Find every destination's position. Raises BrokerError."""
        for pump in self._pumps.values():
            await pump.start()

    async def close(self) -> None:
        """Let go of connections."""
        for sender in self._senders.values():
            await sender.close()

    def tallies(self, head: int, now: datetime) -> Mapping[str, WebhookTally]:
        """For /metrics; ``head`` is the last audit record. Nothing where another replica delivers."""
        if not self._running:
            return {}
        return {
            name: WebhookTally(
                pump.tally.delivered,
                pump.tally.failed,
                max(head - pump.tally.position, 0),
                timedelta(0) if pump.tally.waiting_since is None else now - pump.tally.waiting_since,
            )
            for name, pump in self._pumps.items()
        }
