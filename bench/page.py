"""``docs/performance.md``, from what one run measured. Nothing here measures, and nothing is written by hand there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Report = dict[str, Any]
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
TEMPLATE = Path(__file__).parent / "performance.template.md"
_NAMES = {
    "grant_vs_openbao_c1": "full grants per second by OpenBao tokens per second, 1 caller",
    "grant_vs_openbao_c32": "the same, 32 callers",
    "grant_vs_openbao_c128": "the same, 128 callers",
    "grant_vs_bare_rpc_c32": "full grants per second by RPCs that do nothing, 32 callers",
    "login_vs_direct": "a PostgreSQL login through the broker by the same upstream calls made directly",
    "login_vs_bare_read": "the same by one bare credentials read, without the care around it",
    "revocations_per_s": "ends per second, the upstream answering at once, in one process",
    "lateness_p99_ms": "from its due time to its recorded end, 99th percentile, at half that rate, ms",
    "bytes_per_lease": "resident memory of brokerd for each living lease, bytes",
    "restart_s_100k": "from starting brokerd to ready with 100,000 living leases, s",
    "identity_share": "telling who asks, by the processor time of a grant",
    "audit_share": "making the audit trail, by the processor time of a grant",
    "audit_verify_per_s": "audit records verified per second of processor time",
    "audit_verify_growth_mib": "memory growth while verifying a million of them, MiB",
    "suspend_s": "from suspending everything until the last of 32 busy agents is refused, s",
    "decision_p99_ms_500": "one decision by 500 policies, 99th percentile, ms",
}


def write(report: Report) -> None:
    """Put the page where it belongs."""
    PAGE.write_text(text(report))


def text(report: Report) -> str:
    """The page."""
    revoked, late, logins = report["revocations"], report["lateness"], report["logins"]
    return TEMPLATE.read_text().format(
        **report["machine"],
        void="".join(f"\n\n**Void:** {why}." for why in report["void"]),
        bare_per_s=f"{_rate(report['bare_rpcs_c32']):,.0f}",
        tokens_per_s=f"{_rate(report['openbao_tokens']['32']):,.0f}",
        verdicts=_verdicts(report),
        grants=_grants(report),
        ended=f"{revoked['ended']:,}",
        ended_per_s=f"{revoked['per_second_of_wall']:,.0f}",
        ended_cpu_us=f"{revoked['cpu_us_each']:.0f}",
        ended_growth=f"{revoked['growth_mib']:.0f}",
        late_per_s=f"{late['per_second']:,.0f}",
        late_p50=late["p50_ms"],
        late_p99=late["p99_ms"],
        sizes=_sizes(report),
        replicas=_replicas(report),
        bytes_per_lease=f"{report['ratios']['bytes_per_lease']:.0f}",
        pairs=logins["pairs"],
        **{name: f"{logins[name]:.1f}" for name in ("broker_ms", "direct_ms", "bare_ms")},
    )


def _verdicts(report: Report) -> str:
    rows = [
        (
            f"`{name}`",
            _NAMES.get(name, ""),
            f"{value:,.0f}" if value >= 100 else f"{value:.2f}",
            report["targets"].get(name, ""),
            report["verdicts"].get(name, "not judged"),
        )
        for name, value in report["ratios"].items()
    ]
    return _table(("figure", "what", "measured", "target", ""), rows)


def _grants(report: Report) -> str:
    sides = (("full grants", "grants"), ("OpenBao tokens (raft, file audit, `ab`)", "openbao_tokens"))
    rows = [
        _measured(f"{title}, {callers} callers", rounds)
        for title, key in sides
        for callers, rounds in report[key].items()
    ]
    rows.append(_measured("grants with confirmation, 32 callers", [report["grants_confirmed_c32"]]))
    rows.append(_measured("RPCs that do nothing (`bench/bare.py`), 32 callers", report["bare_rpcs_c32"]))
    return _table(("", "per second", "p50 ms", "p99 ms", "generator", "server"), rows)


def _rate(rounds: Sequence[Mapping[str, float]]) -> float:
    return median(each["rate"] for each in rounds)


def _measured(title: str, rounds: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    digits = {"rate": 0, "p50_ms": 1, "p99_ms": 1, "generator_share": 2, "server_share": 2}
    return (title, *(f"{median(each[key] for each in rounds):.{places}f}" for key, places in digits.items()))


def _sizes(report: Report) -> str:
    heads = ("leases", "start to ready s", "resident MiB", "grants per second", "p50 ms", "p99 ms", "server ms a grant")
    rows = []
    for size in report["growth"]:
        grants = size["grants"]
        cost = 1000 * grants["server_share"] / grants["rate"]
        figures = (f"{grants['rate']:.0f}", f"{grants['p50_ms']:.1f}", f"{grants['p99_ms']:.1f}", f"{cost:.2f}")
        rows.append((f"{size['leases']:,}", f"{size['start_s']:.2f}", f"{size['resident_mib']:.0f}", *figures))
    return _table(heads, rows)


def _replicas(report: Report) -> str:
    heads = ("brokerd", "per second", "p50 ms", "p99 ms", "generators", "brokerd together", "PostgreSQL")
    rows = [
        (*_measured(str(each["replicas"]), [each["grants"]]), f"{each['database_share']:.2f}")
        for each in report["replicas"]
    ]
    return _table(heads, [(*_measured("1, on SQLite", report["grants"]["32"]), ""), *rows])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
