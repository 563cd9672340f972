"""The benchmark's arithmetic, so that its verdicts can be believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.figures import SATURATED, Measurement, middle, saturated, verdicts

ONE = Measurement(rate=100, p50_ms=1, p99_ms=2, generator_share=0.5, server_share=1.0)


def test_a_measurement_from_latencies() -> None:
    # 200 requests of 1 to 200 ms in 10 s, in any order: the 101st is 101 ms, the 199th 199 ms.
    latencies = [n / 1000 for n in reversed(range(1, 201))]
    made = Measurement.of(latencies, elapsed=10.0, generator_cpu=5.0, server_cpu=12.0)
    assert (made.rate, made.generator_share, made.server_share) == (20.0, 0.5, 1.2)
    assert (made.p50_ms, made.p99_ms) == (pytest.approx(101), pytest.approx(199))


def test_one_request_is_its_own_percentiles() -> None:
    made = Measurement.of([0.004], elapsed=1.0, generator_cpu=0, server_cpu=0)
    assert (made.p50_ms, made.p99_ms) == (4.0, 4.0)


def test_the_middle_is_the_median_of_each_figure() -> None:
    rounds = [replace(ONE, rate=rate, p99_ms=p99) for rate, p99 in ((90, 9), (110, 1), (100, 5))]
    assert (middle(rounds).rate, middle(rounds).p99_ms) == (100, 5)


@pytest.mark.parametrize(("share", "void"), [(SATURATED, 0), (SATURATED + 0.001, 1)])
def test_a_saturated_generator_voids_the_run(share: float, void: int) -> None:
    assert len(saturated([ONE, replace(ONE, generator_share=share)])) == void


@pytest.mark.parametrize(
    ("grant", "login", "expected"),
    [
        (2.0, 1.15, ("PASS", "PASS")),
        (1.999, 1.15, ("FAIL", "PASS")),
        (2.0, 1.151, ("PASS", "FAIL")),
    ],
)
def test_the_verdicts(grant: float, login: float, expected: tuple[str, str]) -> None:
    judged = verdicts(
        {
            "grant_vs_openbao_c32": grant,
            "login_vs_direct": login,
            "revocations_per_s": 5_000,
            "lateness_p99_ms": 250,
            "bytes_per_lease": 1_025,
            "restart_s_100k": 2.1,
            "identity_share": 0.05,
            "suspend_s": 1.0,
            "decision_p99_ms_500": 1.0,
            "audit_share": 0.15,
            "audit_verify_per_s": 100_000,
            "audit_verify_growth_mib": 16,
        }
    )
    assert (judged["grant_vs_openbao_c32"], judged["login_vs_direct"]) == expected
    assert judged["identity_share"] == judged["suspend_s"] == judged["decision_p99_ms_500"] == "PASS"
    assert judged["revocations_per_s"] == judged["lateness_p99_ms"] == "PASS"
    assert judged["bytes_per_lease"] == judged["restart_s_100k"] == "FAIL"
    assert judged["audit_share"] == judged["audit_verify_per_s"] == judged["audit_verify_growth_mib"] == "PASS"
