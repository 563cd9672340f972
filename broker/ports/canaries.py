"""What canaries measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from broker.canary.measurement import Measurement

# Of each connector, beside the last of each kind of which something can be said.
KEPT_MEASUREMENTS = 100


class CanaryStore(Protocol):
    """What canaries measured; in one database with, and by the rules of, LeaseStore."""

    async def record_measurement(self, measurement: Measurement) -> None:
        """Keep what a run came to, with its event: canary.measured, .unmeasured or .bound_broken.

        The same run again takes its own place: a credential that was ALIVE was refused in the end. Of each connector
        the newest ``KEPT_MEASUREMENTS`` are kept, and of each kind the last that is not UNMEASURED.
        """
        ...

    async def measurements(self, tenant: str, connector: str, limit: int) -> Sequence[Measurement]:
        """Of one connector, the newest first. A row that fails its MAC is none: nobody measured that."""
        ...
