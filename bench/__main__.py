"""``make bench``: measure everything in one run, print it, write ``bench/latest.json`` and ``docs/performance.md``.

Exit codes: 0 measured, whatever the verdicts; 1 one missed (``--strict``) or the run void.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench import audit_trail, decisions, growth, login, page, replicas, revocations
from bench.broker_side import BrokerSide
from bench.figures import TARGETS, Measurement, middle, saturated, verdicts
from bench.openbao_side import OpenBaoSide
from broker.dev.files import private_directory

LATEST = Path(__file__).parent / "latest.json"
CALLERS = (1, 32, 128)
ROUNDS = 3
WARM_UP, DURATION = 1.0, 6.0  # seconds
PAIRS = 60
REVOCATIONS = 30_000
LATENESS_SECONDS = 5.0


def main() -> int:
    """Run, tell, write."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--strict", action="store_true", help="exit 1 where a target is missed")
    parser.add_argument("--million", action="store_true", help="also with a million living leases: ten minutes more")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jit-broker-bench-") as scratch:
        report = _measure(Path(scratch), (*growth.SIZES, *([1_000_000] if options.million else [])))
    LATEST.write_text(json.dumps(report, indent=2) + "\n")
    page.write(report)
    missed = [name for name, verdict in report["verdicts"].items() if verdict != "PASS"]
    return 1 if report["void"] or (options.strict and missed) else 0


def _measure(scratch: Path, sizes: Sequence[int]) -> page.Report:
    # First, while no server of ours is there, or winds down: it is one thread's, and needs none.
    print(f"measuring decisions by {decisions.POLICIES} policies ...", flush=True)
    decided = decisions.measure()
    print(f"measuring {REVOCATIONS} revocations ...", flush=True)
    revoked = revocations.rate(scratch / "revocations", REVOCATIONS)
    half = revoked.rate / 2
    late = revocations.lateness(scratch / "lateness", round(half * LATENESS_SECONDS), half)
    grants, tokens, bare, confirmed, (identity, audited), suspensions = _grants(scratch)
    print("measuring with more and more living leases ...", flush=True)
    sized = growth.measure(private_directory(scratch / "growth"), sizes, duration=DURATION)
    print("measuring one, two and three replicas on PostgreSQL ...", flush=True)
    several = replicas.measure(private_directory(scratch / "replicas"), warm_up=WARM_UP, duration=DURATION)
    print(f"measuring the verification of {audit_trail.RECORDS} audit records ...", flush=True)
    verified = audit_trail.measure(private_directory(scratch / "audit"))
    print("measuring logins ...", flush=True)
    logins = asyncio.run(login.measure(scratch / "login", PAIRS))
    ratios = {
        **{
            f"grant_vs_openbao_c{n}": median(g.rate / t.rate for g, t in zip(grants[n], tokens[n], strict=True))
            for n in CALLERS
        },
        "grant_vs_bare_rpc_c32": median(g.rate / b.rate for g, b in zip(grants[32], bare, strict=True)),
        "login_vs_direct": logins.broker_ms / logins.direct_ms,
        "login_vs_bare_read": logins.broker_ms / logins.bare_ms,
        "revocations_per_s": revoked.rate,
        "lateness_p99_ms": float(late.percentile(99)),
        "bytes_per_lease": growth.bytes_per_lease(sized),
        "restart_s_100k": next(each.start_s for each in sized if each.leases == 100_000),
        # Of the processor time of one grant: both are seconds of the same process in the same run.
        "identity_share": median(identity * m.rate / m.server_share for m in grants[32]),
        "audit_share": median(audited * m.rate / m.server_share for m in grants[32]),
        "audit_verify_per_s": verified.per_second,
        "audit_verify_growth_mib": verified.growth_mib,
        # Seconds, not a ratio: what is promised to an operator is a time.
        "suspend_s": max(suspensions),
        "decision_p99_ms_500": decided.p99_ms,
    }
    void = saturated([m for n in CALLERS for m in (*grants[n], *tokens[n])])
    if verified.findings:
        void.append(f"the verification of a whole audit trail had {verified.findings} findings")
    judged = verdicts(ratios)
    _tell(grants, tokens, middle(bare), confirmed, several, logins, ratios, judged, void)
    return {
        "machine": {
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
            "load": round(os.getloadavg()[2], 1),
        },
        "grants": {str(n): [asdict(m) for m in grants[n]] for n in CALLERS},
        "grants_confirmed_c32": asdict(confirmed),
        "suspensions_s": suspensions,
        "bare_rpcs_c32": [asdict(m) for m in bare],
        "openbao_tokens": {str(n): [asdict(m) for m in tokens[n]] for n in CALLERS},
        "logins": asdict(logins),
        "revocations": _summary(revoked),
        "lateness": {"per_second": half, **_summary(late)},
        "growth": [asdict(each) for each in sized],
        "replicas": [asdict(each) for each in several],
        "decisions": asdict(decided),
        "audit_verification": asdict(verified),
        "ratios": ratios,
        "targets": {name: f"{sign} {bound:g}" for name, (sign, bound) in TARGETS.items()},
        "verdicts": judged,
        "void": void,
    }


def _summary(measured: revocations.Measured) -> dict[str, float]:
    return {
        "ended": measured.ended,
        "per_second_of_wall": measured.rate,
        "cpu_us_each": measured.cpu_seconds / measured.ended * 1e6,
        "p50_ms": measured.percentile(50),
        "p99_ms": measured.percentile(99),
        "growth_mib": measured.growth_mib,
    }


_Rounds = dict[int, list[Measurement]]


def _grants(
    scratch: Path,
) -> tuple[_Rounds, _Rounds, list[Measurement], Measurement, tuple[float, float], list[float]]:
    """Grants and tokens in turn: A B A B, at each number of callers; after each round, RPCs that do nothing."""
    grants: _Rounds = {n: [] for n in CALLERS}
    tokens: _Rounds = {n: [] for n in CALLERS}
    bare: list[Measurement] = []
    with BrokerSide(scratch / "broker") as broker, OpenBaoSide(scratch) as openbao:
        for number in range(ROUNDS):
            print(f"measuring grants and tokens, round {number + 1} of {ROUNDS} ...", flush=True)
            for callers in CALLERS:
                grants[callers].append(broker.measure(callers, warm_up=WARM_UP, duration=DURATION))
                tokens[callers].append(openbao.measure(callers, warm_up=WARM_UP, duration=DURATION))
            bare.append(broker.measure_bare(32, warm_up=WARM_UP, duration=DURATION / 2))
        confirmed = broker.measure(32, warm_up=WARM_UP, duration=DURATION, confirm=True)
        print("measuring suspensions ...", flush=True)
        # With all the leases of the rounds alive: an emergency does not come to an empty ledger.
        suspensions = [broker.suspend(32, warm_up=WARM_UP) for _ in range(ROUNDS)]
    return grants, tokens, bare, confirmed, (broker.identity_seconds(), broker.audit_seconds()), suspensions


def _tell(
    grants: _Rounds,
    tokens: _Rounds,
    bare: Measurement,
    confirmed: Measurement,
    several: Sequence[replicas.Several],
    logins: login.Logins,
    ratios: Mapping[str, float],
    judged: Mapping[str, str],
    void: Sequence[str],
) -> None:
    print(f"\n{'':34}{'per second':>11}{'p50 ms':>9}{'p99 ms':>9}{'generator':>11}{'server':>9}")
    for name, rounds in (("full grants", grants), ("OpenBao tokens", tokens)):
        for callers in CALLERS:
            _row(f"{name}, {callers} callers", middle(rounds[callers]))
    _row("grants with confirmation, 32 callers", confirmed)
    _row("RPCs that do nothing, 32 callers", bare)
    for each in several:
        _row(f"32 callers, {each.replicas} on PostgreSQL", each.grants)
    print("  (medians of the rounds; generator and server in processor cores)\n")
    print(f"login through the broker {logins.broker_ms:.1f} ms, the same calls directly {logins.direct_ms:.1f} ms,")
    print(f"a bare credentials read {logins.bare_ms:.1f} ms (medians of {logins.pairs}, taken in turn)\n")
    for name, ratio in ratios.items():
        sign, bound = TARGETS.get(name, ("", 0.0))
        print(f"{name:24}{ratio:6.2f}   {f'{sign} {bound}  {judged[name]}' if sign else 'not judged'}")
    for why in void:
        print(f"VOID: {why}")


def _row(name: str, m: Measurement) -> None:
    print(f"{name:36}{m.rate:9.0f}{m.p50_ms:9.1f}{m.p99_ms:9.1f}{m.generator_share:11.2f}{m.server_share:9.2f}")


if __name__ == "__main__":
    sys.exit(main())
