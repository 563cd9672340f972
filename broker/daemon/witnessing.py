"""Checkpoints and witnesses, wired: what is signed, where it goes, and the start held against it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import structlog

from broker.config import Checkpoints, Config, WitnessSettings
from broker.daemon.turns import Turns
from broker.errors import BrokerError
from broker.issuance.gate import Gate
from broker.issuance.recovering import Recovering
from broker.ports.clock import Clock, Rng
from broker.ports.trail import Evidence, TrailEnd, TrailStore, Witness
from broker.references import resolve
from broker.witnesses.checkpointer import Checkpointer
from broker.witnesses.comparing import behind
from broker.witnesses.file import FileWitness
from broker.witnesses.http import HttpWitness
from broker.witnesses.pump import WitnessPump, WitnessTally
from broker.witnesses.signing import CheckpointKeys
from broker.witnesses.syslog import SyslogWitness, host_name

log = structlog.get_logger("broker.witnesses")

# For the last checkpoint of a broker that stops; what it does not reach is sent after the next start.
_LAST = 5.0


def witness_of(settings: WitnessSettings) -> Witness:
    """The witness that they are about."""
    if settings.file is not None:
        return FileWitness(settings.file)
    if settings.s3 is not None:
        from broker.witnesses.s3 import S3Witness  # with the whole of boto3, which hardly anybody needs

        return S3Witness(settings.s3, resolve)
    if settings.http is not None:
        return HttpWitness(settings.http, resolve)
    assert settings.syslog is not None  # noqa: S101 - the configuration has exactly one
    return SyslogWitness(settings.syslog, host_name())


class Witnessing:
    """Made at start. Raises InvalidInput (CONFIG_INVALID) for unfit keys, OSError for a CA file that cannot be read."""

    def __init__(
        self,
        config: Config,
        settings: Checkpoints,
        store: TrailStore,
        recovery: Recovering,
        gate: Gate,
        clock: Clock,
        rng: Rng,
        writer: str,
        turns: Turns,
        made: Callable[[WitnessSettings], Witness] = witness_of,
    ) -> None:
        self._turns = turns
        self._settings = settings
        self._store = store
        self._recovery = recovery
        self._gate = gate
        self._clock = clock
        self._tenant = config.tenant
        self._keys = CheckpointKeys(settings.signing_keys, resolve)
        origin = settings.origin or f"{config.trust_domain}/jit-broker/{config.tenant}"
        self._checkpointer = Checkpointer(
            store,
            self._keys,
            origin=origin,
            tenant=config.tenant,
            writer=writer,
            newest=self._none_has_seen_more,
        )
        self._witnesses = {name: made(each) for name, each in settings.witnesses.items()}
        self._pumps = {
            name: WitnessPump(name, witness, store, clock, rng, config.tenant, self._may_send)
            for name, witness in self._witnesses.items()
        }
        gate.unread = tuple(self._witnesses)

    async def start(self) -> None:
        """Hold the ledger against every witness; those that cannot be asked are asked again. Raises BrokerError."""
        await self.ask_unread()
        if self._gate.unread:
            log.error("nothing is granted before these witnesses were asked", witnesses=self._gate.unread)

    async def ask_unread(self) -> None:
        """Ask those that could not be asked yet, all at once."""
        if not self._gate.unread:
            return
        # Once something is witnessed anew, the newest that a witness has is our own.
        end = await self._store.trail_end(self._tenant)
        unread = await self._hold_against(tuple(self._gate.unread), end)
        # Nothing newer there may mean that another replica has entered recovery for it, since this one looked.
        await self._recovery.resume()
        self._gate.unread = unread

    async def _none_has_seen_more(self, end: TrailEnd) -> bool:
        """Asked before each checkpoint: the ledger may have been put back, or failed over, beneath this very broker.

        One that has seen no later state than the old one has nothing of its own to miss there.
        """
        return not await self._hold_against(tuple(self._witnesses), end) and not self._gate.recovery

    async def _hold_against(self, names: Sequence[str], end: TrailEnd | None) -> tuple[str, ...]:
        """Ask these what they have seen, all at once, and enter recovery for what ``end`` lacks. Who did not answer."""
        answers = await asyncio.gather(
            *(behind(name, self._witnesses[name], end, self._keys.public) for name in names), return_exceptions=True
        )
        unread = []
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, OSError):
                unread.append(name)
                log.warning("a witness could not be asked what it has", witness=name, why=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None and not await self._meanwhile(answer):
                await self._recovery.enter(answer)
        return tuple(unread)

    async def _meanwhile(self, found: Evidence) -> bool:
        """Whether another replica witnessed that after this one looked at the ledger, which has it by now."""
        end = await self._store.trail_end(self._tenant)
        return bool(found.at_ms) and end is not None and found.at_ms <= end.checkpoint_ms

    async def tick(self) -> None:
        """A checkpoint if one is due, and how far the witnesses are behind. Raises BrokerError."""
        # Before everything was asked, a checkpoint of ours would pass for the newest.
        if self._may_send():
            now, settings = self._clock.now(), self._settings
            await self._checkpointer.if_due(now, settings.every, settings.every_records)
        worst = ("", 0, timedelta(0))
        for name, pump in self._pumps.items():
            lag = await pump.measure()
            if (lag.age, lag.records) > (worst[2], worst[1]):
                worst = (name, lag.records, lag.age)
        self._gate.witness, self._gate.witness_records, self._gate.witness_age = worst

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, pump in self._pumps.items():
                group.create_task(pump.run(), name=f"witness {name}")

    async def finish(self) -> None:
        """A last checkpoint over everything, and one try to send it."""
        if not self._may_send():
            return
        try:
            async with asyncio.timeout(_LAST):
                await self._checkpointer.write(self._clock.now())
                await asyncio.gather(*(pump.step() for pump in self._pumps.values()))
        except (BrokerError, TimeoutError) as failure:
            log.warning("the last checkpoint was not sent; it is after the next start", why=str(failure))

    async def close(self) -> None:
        """Let go of connections."""
        for witness in self._witnesses.values():
            await witness.close()

    def reload(self) -> None:
        """Read the signing keys again; what is unfit is told, and the last good stay."""
        try:
            self._keys.reload()
        except BrokerError as refused:
            log.error("the keys of checkpoints were not taken in; the last good stay", problem=refused.message)

    def alarms(self) -> Sequence[str]:
        """What operators should look at."""
        return [
            f"witness {name} has not taken a checkpoint since {pump.tally.failing_since.isoformat()}"
            for name, pump in self._pumps.items()
            if pump.tally.failing_since is not None
        ]

    def tallies(self) -> Mapping[str, WitnessTally]:
        """For /metrics."""
        return {name: pump.tally for name, pump in self._pumps.items()}

    def _may_send(self) -> bool:
        # In recovery nothing goes out: what the witnesses have is the evidence, and a restart must find it the newest.
        return self._turns.mine("checkpoints") and not self._gate.unread and not self._gate.recovery
