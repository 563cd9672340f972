"""The arithmetic: percentiles, medians, ratios, and when a run does not count. Nothing here measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Measurement:
    rate: float
    p50_ms: float
    p99_ms: float
    generator_share: float
    server_share: float

    @classmethod
    def of(cls, latencies: Sequence[float], *, elapsed: float, generator_cpu: float, server_cpu: float) -> Self:
        ordered = sorted(latencies)
        n = len(ordered)
        return cls(
            n / elapsed,
            ordered[n // 2] * 1000,
            ordered[min(n - 1, n * 99 // 100)] * 1000,
            generator_cpu / elapsed,
            server_cpu / elapsed,
        )
