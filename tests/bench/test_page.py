"""The page says what the run measured, and says it where something was missed or does not count."""

from __future__ import annotations

from dataclasses import asdict, replace

from bench import page
from bench.figures import TARGETS, Measurement, verdicts
from bench.growth import FEW, MANY, Size, bytes_per_lease
from bench.soak import Look, growth

ONE = Measurement(rate=500, p50_ms=2, p99_ms=9, generator_share=0.25, server_share=1.0)
SIZES = [Size(FEW, 1.0, 100.0, ONE), Size(MANY, 1.5, 100.0 + 512 * (MANY - FEW) / 2**20, ONE)]


def report(**changes: object) -> page.Report:
    measured = dict.fromkeys([*TARGETS, "grant_vs_openbao_c1"], 1.0)
    made: page.Report = {
        "machine": {"processors": 2, "python": "3.11", "system": "Linux", "load": 1.5},
        "grants": {"32": [asdict(ONE)]},
        "openbao_tokens": {"32": [asdict(ONE)]},
        "bare_rpcs_c32": [asdict(replace(ONE, rate=2_000))],
        "grants_confirmed_c32": asdict(ONE),
        "revocations": {
            "ended": 30_000,
            "per_second_of_wall": 6_000.0,
            "cpu_us_each": 150.0,
            "p50_ms": 1,
            "p99_ms": 2,
            "growth_mib": 20.0,
        },
        "lateness": {"per_second": 3_000.0, "p50_ms": 60, "p99_ms": 120},
        "growth": [asdict(each) for each in SIZES],
        "replicas": [{"replicas": n, "grants": asdict(ONE), "database_share": 0.5} for n in (1, 2, 3)],
        "logins": {"pairs": 60, "broker_ms": 30.0, "direct_ms": 25.0, "bare_ms": 8.0},
        "ratios": {**measured, "bytes_per_lease": bytes_per_lease(SIZES)},
        "targets": {name: f"{sign} {bound:g}" for name, (sign, bound) in TARGETS.items()},
        "verdicts": verdicts(measured),
        "void": [],
    }
    return {**made, **changes}


def test_every_figure_stands_there_with_its_verdict() -> None:
    text = page.text(report())
    for name in TARGETS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert verdicts(report()["ratios"])[name] in row
        assert page._NAMES[name] in row
    assert "| full grants, 32 callers | 500 | 2.0 | 9.0 | 0.25 | 1.00 |" in text
    assert "6,000 per second, with 150 µs of processor" in text
    assert "takes 512 bytes" in text
    assert "This one served 2,000 and made 500." in text
    assert "| RPCs that do nothing (`bench/bare.py`), 32 callers | 2000 |" in text
    assert "| 1, on SQLite | 500 | 2.0 | 9.0 | 0.25 | 1.00 |  |" in text
    assert "| 3 | 500 | 2.0 | 9.0 | 0.25 | 1.00 | 0.50 |" in text
    assert "{" not in text


def test_a_run_that_does_not_count_says_so() -> None:
    assert "**Void:** a generator was the bottleneck." in page.text(report(void=["a generator was the bottleneck"]))


def test_the_memory_of_a_lease_is_what_more_of_them_add() -> None:
    assert round(bytes_per_lease(SIZES)) == 512
    assert bytes_per_lease([SIZES[0], Size(MANY, 1.0, 90.0, ONE)]) == 0.0  # no lease gives memory back


def test_what_a_soak_grew_by_is_what_the_line_that_fits_best_grew_by() -> None:
    looks = [Look(60.0 * minute, {"files": 10 + minute / 10, "threads": 5.0}) for minute in range(10)]
    assert round(growth(looks, "files"), 6) == 0.9
    assert growth(looks, "threads") == 0.0
    assert growth(looks[:1], "files") == 0.0
    noisy = [Look(float(at), {"files": 10.0 + (at % 2)}) for at in range(11)]
    assert abs(growth(noisy, "files")) < 1e-9
