"""The arithmetic: percentiles, medians, ratios, and when a run does not count. Nothing here measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

# A generator above this share of one processor measures itself.
SATURATED = 0.9
# What is promised, by figure: ratios, and one latency.
TARGETS: Mapping[str, tuple[str, float]] = {
    "grant_vs_openbao_c32": (">=", 2.0),
    "login_vs_direct": ("<=", 1.15),
    "revocations_per_s": (">=", 5_000.0),
    "lateness_p99_ms": ("<=", 250.0),
    "bytes_per_lease": ("<=", 1_024.0),
    "restart_s_100k": ("<=", 2.0),
    "identity_share": ("<=", 0.05),
    "suspend_s": ("<=", 1.0),
    "decision_p99_ms_500": ("<=", 1.0),
    "audit_share": ("<=", 0.15),
    "audit_verify_per_s": (">=", 100_000.0),
    "audit_verify_growth_mib": ("<=", 16.0),
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run of one side. Shares are of one processor: 1.5 is one and a half of them busy."""

    rate: float  # per second
    p50_ms: float
    p99_ms: float
    generator_share: float
    server_share: float

    @classmethod
    def of(cls, latencies: Sequence[float], *, elapsed: float, generator_cpu: float, server_cpu: float) -> Self:
        """From the latency of each request and the processor seconds used, all in seconds."""
        ordered = sorted(latencies)
        count = len(ordered)
        return cls(
            rate=count / elapsed,
            p50_ms=ordered[count // 2] * 1000,
            p99_ms=ordered[min(count - 1, count * 99 // 100)] * 1000,
            generator_share=generator_cpu / elapsed,
            server_share=server_cpu / elapsed,
        )


def middle(rounds: Sequence[Measurement]) -> Measurement:
    """The median of each figure."""
    return Measurement(
        rate=median(m.rate for m in rounds),
        p50_ms=median(m.p50_ms for m in rounds),
        p99_ms=median(m.p99_ms for m in rounds),
        generator_share=median(m.generator_share for m in rounds),
        server_share=median(m.server_share for m in rounds),
    )


def saturated(measurements: Sequence[Measurement]) -> list[str]:
    """Why the run is void, for each measurement whose generator was the bottleneck."""
    return [
        f"a load generator used {m.generator_share:.2f} of a processor, more than {SATURATED}"
        for m in measurements
        if m.generator_share > SATURATED
    ]


def verdicts(ratios: Mapping[str, float]) -> dict[str, str]:
    """PASS or FAIL for each ratio that has a target."""
    judged = {}
    for name, (sign, bound) in TARGETS.items():
        met = ratios[name] >= bound if sign == ">=" else ratios[name] <= bound
        judged[name] = "PASS" if met else "FAIL"
    return judged
