"""The loop: load, ``kill -9`` at a random moment, again; then everything is healed, comes to its end, and is judged."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from broker.keys import FileKeyRing
from broker.stores.audit_reader import AuditReader
from broker.stores.invariants import LedgerChecks
from tests.kill import upstream_log
from tests.kill.agents import Agents
from tests.kill.daemon import Daemon
from tests.kill.setting import Setting
from tests.kill.upstream import Upstream
from tests.kill.verdict import Delivery, Verdict, judge

# One restart in so many is the command in a new interpreter, and not a fork of one that has imported it.
COLD = 50
_HEALED_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, and how: everything that chance decides comes from ``seed``."""

    kills: int
    seed: int
    agents: int = 8
    mishaps: float = 0.02  # of the requests to the upstream
    longest: float = 1.0  # seconds from a start, or from being ready, to the kill
    unready: float = 0.15  # of the kills: while it starts, so while it recovers what the last one left


@dataclass(slots=True)
class Told:
    """What a loop came to."""

    plan: Plan
    verdict: Verdict = field(default_factory=Verdict)
    violations: list[str] = field(default_factory=list)  # of the ledger by itself, its chain among them
    starts_ms: list[float] = field(default_factory=list)  # until it was ready
    seconds: float = 0.0
    healing: float = 0.0
    complaints: list[str] = field(default_factory=list)  # what brokerd said of itself that is a defect

    @property
    def faults(self) -> list[str]:
        """A line each."""
        return [*self.verdict.faults, *self.violations, *self.complaints]

    def figures(self) -> dict[str, object]:
        """For whoever watches."""
        return {
            "kills": self.plan.kills,
            "seed": self.plan.seed,
            **self.verdict.figures,
            "ready after, ms": round(median(self.starts_ms)) if self.starts_ms else None,
            "healed after, s": round(self.healing, 1),
            "seconds": round(self.seconds, 1),
            "faults": len(self.faults),
        }


def run(directory: Path, plan: Plan, tell: Callable[[str], None] = lambda line: None) -> Told:
    """Kill ``plan.kills`` times under load. ``directory`` keeps everything that a fault is to be read from."""
    told, begun = Told(plan), time.monotonic()
    setting = Setting(directory, plan.agents)
    with Upstream(directory / "upstream.jsonl", setting.ledger, seed=plan.seed, mishaps=plan.mishaps) as upstream:
        (config,) = setting.write(upstream.address)
        daemon = Daemon(config, setting.operations_ports[0])
        try:
            daemon.start(cold=True)
            told.starts_ms.append(1000 * daemon.until_ready())
            with Agents(setting, directory / "agents.jsonl", plan.seed) as agents:
                _kill(daemon, agents, plan, told, tell)
                healing = time.monotonic()
                upstream.calm()
                daemon.until_ready()
                agents.finish(_HEALED_SECONDS)
            until_all_is_over(setting.ledger)
            told.healing = time.monotonic() - healing
            assert daemon.stop() == 0, daemon.said()
        finally:
            daemon.end()
    told.seconds = time.monotonic() - begun
    told.verdict, told.violations = judged(setting, directory)
    return told


def _kill(daemon: Daemon, agents: Agents, plan: Plan, told: Told, tell: Callable[[str], None]) -> None:
    chance = random.Random(plan.seed)
    for number in range(1, plan.kills + 1):
        if chance.random() < plan.unready:
            time.sleep(chance.uniform(0, 0.3))
        else:
            told.starts_ms.append(1000 * daemon.until_ready())
            time.sleep(chance.uniform(0, plan.longest))
        agents.check()
        daemon.kill()
        told.complaints += complaints_in(daemon.said(), number)
        daemon.start(cold=number % COLD == 0)
        if number % 100 == 0:
            tell(f"{number} kills")


def complaints_in(said: str, life: int) -> list[str]:
    """Tracebacks: whatever goes wrong around it, brokerd expects it."""
    return [f"in life {life} brokerd said: {said[-1500:]}"] if "Traceback" in said else []


def until_all_is_over(ledger: Path, within: float = _HEALED_SECONDS) -> None:
    """Wait until no attempt may be alive. Raises where that takes too long."""
    end = time.monotonic() + within
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=30)
    try:
        while left := connection.execute(
            "SELECT id, state, cause, failures, last_error FROM attempts WHERE due_at IS NOT NULL"
        ).fetchall():
            if time.monotonic() > end:
                raise AssertionError(f"{len(left)} attempts never came to an end: {left[:5]}")
            time.sleep(0.05)
    finally:
        connection.close()


def judged(setting: Setting, directory: Path) -> tuple[Verdict, list[str]]:
    """The verdict, and what is wrong with the ledger by itself."""
    now_ms = time.time_ns() // 1_000_000
    log = upstream_log.read(directory / "upstream.jsonl")
    with AuditReader(setting.ledger) as audit:
        verdict = judge(log, audit.records(), deliveries(directory / "agents.jsonl"), now_ms)
    keys = FileKeyRing((f"file:{setting.key_file}",))
    with LedgerChecks(setting.ledger) as checks:
        return verdict, [f"{each.invariant}: {each.where}: {each.detail}" for each in checks.violations(keys)]


def deliveries(path: Path) -> Iterator[Delivery]:
    """What the agents say that they were given; what is being written at this moment is for the next time."""
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield Delivery(**json.loads(line))
