"""Where checkpoints go: a file on another machine, which is away for a while, over a line that is cut."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from broker.audit.believed import read
from broker.config import Checkpoints
from broker.config.witnesses import WitnessSettings
from broker.ports.trail import OutgoingCheckpoint
from broker.witnesses.file import FileWitness
from broker.witnesses.times import later_than
from tests.issuance.world import TENANT
from tests.simulation.chance import Chance
from tests.simulation.process import current
from tests.witnesses.fake import signing_key

# What Witnessing reads of a configuration.
CONFIG: Any = SimpleNamespace(tenant=TENANT, trust_domain="test")
# Of all brokers alike. A checkpoint every two seconds: what is not witnessed yet cannot be missed.
EVERY = timedelta(seconds=2)
ASK_AGAIN = 5  # in ticks


class SimulatedWitness(FileWitness):
    """The file itself is the real one; only its threads are not."""

    def __init__(self, directory: Path, chance: Chance) -> None:
        super().__init__(directory / "witness")
        self._chance = chance
        self.away = False
        self.settings = Checkpoints.model_construct(
            signing_keys=(signing_key(directory / "checkpoint.key"),),
            origin=None,
            every=EVERY,
            every_records=10_000,
            witnesses={"file": WitnessSettings.model_construct(file=self._path, s3=None, http=None, syslog=None)},
        )

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        await self._way()
        self._append(checkpoint.note, checkpoint.at_ms)
        if self._chance.sometimes("a witness has it and does not say so", 0.4):
            raise OSError("the answer was lost")
        await self._way()

    async def newest(self, after_ms: int) -> str | None:
        await self._way()
        note = self._latest()
        await self._way()
        return None if note is None or not later_than(note, after_ms) else note

    async def _way(self) -> None:
        """Raises OSError where nothing gets through."""
        await asyncio.sleep(self._chance.between(0.001, 0.05))
        process = current()
        if (self.away and not self._chance.calm) or (process is not None and process.cut_from_upstream):
            raise OSError("no route to the witness")

    def seen_ms(self) -> int:
        """The time of the latest checkpoint that it has; -1 where it has none."""
        note = self._latest()
        said = None if note is None else read(note, ()).checkpoint
        return -1 if said is None else said.at_ms
