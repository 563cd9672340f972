"""What a grant, a start and the memory cost with more and more living leases in the ledger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.broker_side import BrokerSide
from bench.figures import Measurement

SIZES = (1_000, 10_000, 100_000)
# Of which two the memory of a lease is the difference.
FEW, MANY = SIZES[0], SIZES[-1]
CALLERS = 32
# Looked at once the start is over and its reviews are done.
_SETTLING = 5.0  # seconds
_TRIES = 10


@dataclass(frozen=True, slots=True)
class Size:
    """With so many living leases."""

    leases: int
    start_s: float  # from the process's start until it is ready; everything is in the ledger already
    resident_mib: float  # of brokerd, before the grants
    grants: Measurement


def measure(scratch: Path, sizes: Sequence[int] = SIZES, *, duration: float) -> list[Size]:
    """One after the other, each with a brokerd and a ledger of its own."""
    return [_one(scratch / str(leases), leases, duration) for leases in sizes]


def _one(directory: Path, leases: int, duration: float) -> Size:
    with BrokerSide(directory, leases) as broker:
        time.sleep(_SETTLING)
        resident = broker.resident_bytes() / 2**20
        return Size(leases, broker.start_seconds, resident, _grants(broker, duration))


def _grants(broker: BrokerSide, duration: float) -> Measurement:
    """Once it grants: a broker that reviews very many leases after its start may be behind for a while."""
    for _ in range(_TRIES):
        with suppress(RuntimeError):
            return broker.measure(CALLERS, warm_up=1.0, duration=duration)
        time.sleep(_SETTLING)
    return broker.measure(CALLERS, warm_up=1.0, duration=duration)


def bytes_per_lease(sizes: Sequence[Size]) -> float:
    """Resident memory for each living lease."""
    few = next(each for each in sizes if each.leases == FEW)
    many = next(each for each in sizes if each.leases == MANY)
    return max(0.0, (many.resident_mib - few.resident_mib) * 2**20 / (MANY - FEW))
