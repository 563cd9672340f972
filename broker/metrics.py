"""What /metrics tells, in Prometheus' terms. Names and labels are an interface: see docs/operators.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.breakglass.reviews import OWED
from broker.canary.measurement import Measurement
from broker.policy.shadow import ShadowVerdict
from broker.ports.figures import LedgerFigures
from broker.ports.orphans import OrphanFigures
from broker.ports.trail import WitnessLag
from broker.revocation.lane import Tally
from broker.revocation.reconciler import Reconciled
from broker.suspension.suspension import Kind

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counts RPCs as they happen, and renders them beside the ledger's figures when scraped."""

    def __init__(self) -> None:
        # Each counter's birthday doubles the page and tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._rpcs = Counter(
            "broker_rpcs",
            "RPCs answered, by method and outcome (OK or reason).",
            ("method", "outcome"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "broker_rpc_seconds", "Time to answer an RPC.", ("method",), buckets=_BUCKETS, registry=self._registry
        )
        self._shadow = Counter(
            "broker_shadow_verdicts",
            "What shadow policies would have decided. Nothing is decided by them.",
            ("shadow_policy", "would", "changes"),
            registry=self._registry,
        )
        self._escalations = Counter(
            "broker_escalations",
            "Rules of escalation.yaml that fired, by rule, mode and what was done.",
            ("rule", "mode", "took"),
            registry=self._registry,
        )
        self._reviews = Counter(
            "broker_policy_reviews",
            "Live leases that a review found to stand otherwise than before, by what the rules in force say.",
            ("outcome", "revoked"),
            registry=self._registry,
        )
        self._canaries = Counter(
            "broker_canaries",
            "Runs of canaries, by what they came to.",
            ("connector", "kind", "outcome"),
            registry=self._registry,
        )
        self._unquestioned = Counter(
            "broker_escalation_unquestioned",
            "Ids that were not found and, being too many, were not looked into.",
            registry=self._registry,
        )
        self._state = _State()
        self._registry.register(self._state)
        # Labelled children are looked up once; prometheus_client's own lookup costs microseconds per RPC.
        self._children: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def rpc(self, method: str, outcome: str, seconds: float) -> None:
        """One finished RPC."""
        pair = self._children.get((method, outcome))
        if pair is None:
            name = method.rpartition("/")[2]
            pair = (self._rpcs.labels(name, outcome), self._seconds.labels(name))
            self._children[method, outcome] = pair
        pair[0].inc()
        pair[1].observe(seconds)

    def shadow(self, verdict: ShadowVerdict) -> None:
        """One request, and what shadow policies would have made of it; the label is empty where none would decide."""
        changes = "yes" if verdict.changes else "no"
        for policy in verdict.shadow_policies or ("",):
            self._shadow.labels(policy, verdict.would.value, changes).inc()

    def escalation(self, rule: str, mode: str, took: str) -> None:
        """One firing of an escalation rule."""
        self._escalations.labels(rule, mode, took).inc()

    def policy_review(self, outcome: str, revoked: bool) -> None:
        """One live lease that stands otherwise than before."""
        self._reviews.labels(outcome, "yes" if revoked else "no").inc()

    def canary(self, connector: str, kind: str, outcome: str) -> None:
        """One run of a canary came to something; one whose bound was broken comes to ALIVE, and later to LATE."""
        self._canaries.labels(connector, kind, outcome).inc()

    def unquestioned(self) -> None:
        """One id that was not found was not looked into."""
        self._unquestioned.inc()

    def render(self, snapshot: Snapshot) -> bytes:
        """The text exposition of everything at this moment."""
        self._state.snapshot = snapshot
        return generate_latest(self._registry)


class Snapshot:
    """The broker's state at one scrape. Plain data. ``figures`` None: the ledger did not answer."""

    def __init__(
        self,
        figures: LedgerFigures | None,
        tallies: Mapping[str, Tally],
        *,
        ready: bool,
        agents: int,
        templates: int,
        deploy_digest: str,
        own_svid_expires: datetime,
        own_svid_overdue: bool,
        roots: Mapping[str, int],
        tls_problems: int,
        webhooks: Mapping[str, WebhookTally],
        issuers: Mapping[str, KeysTally],
        recovery: bool = False,
        witnesses: Mapping[str, WitnessTally] | None = None,
        unread: Sequence[str] = (),
        access_review_overdue: bool | None = None,
        roots_refused: Sequence[str] = (),
        circuits_open: Sequence[str] = (),
        orphans: Mapping[str, OrphanFigures] | None = None,
        reconciled: Mapping[str, Reconciled] | None = None,
        canaries: Sequence[Measurement] = (),
        time: TimeFigures | None = None,
        room: RoomFigures | None = None,
        stalled: bool = False,
        restarts: int = 0,
        now: datetime | None = None,
    ) -> None:
        self.figures = figures
        self.tallies = tallies
        self.ready = ready
        self.agents = agents
        self.templates = templates
        self.deploy_digest = deploy_digest
        self.own_svid_expires = own_svid_expires
        self.own_svid_overdue = own_svid_overdue
        self.roots = roots
        self.tls_problems = tls_problems
        self.webhooks = webhooks
        self.access_review_overdue = access_review_overdue
        self.recovery = recovery
        self.witnesses = witnesses or {}
        self.unread = frozenset(unread)
        self.issuers = issuers
        self.roots_refused = frozenset(roots_refused)
        self.circuits_open = frozenset(circuits_open)
        self.orphans = orphans or {}
        self.reconciled = reconciled or {}
        self.canaries = canaries
        self.time = time
        self.room = room
        self.stalled = stalled
        self.restarts = restarts
        self.now = now


class TimeFigures(NamedTuple):
    """The wall clock, held against broker time."""

    doubted: bool
    behind: float  # seconds
    doubts: int  # since the start


class RoomFigures(NamedTuple):
    """Of the ledger's disk."""

    full: bool
    free: int  # bytes


class KeysTally(NamedTuple):
    """Of one OpenID provider: how old the keys in force are, in seconds (None: there are none), and tries."""

    age: float | None
    fetched: int
    failed: int


@dataclass(frozen=True, slots=True)
class WebhookTally:
    """One webhook destination: how far behind the audit trail it is, and how its deliveries went."""

    delivered: int
    failed: int
    behind: int
    waiting: timedelta


class WitnessTally(Protocol):
    """One witness: how its deliveries went, and what it has not been sent."""

    @property
    def delivered(self) -> int:
        """Checkpoints it has taken."""

    @property
    def failed(self) -> int:
        """Tries that failed."""

    @property
    def lag(self) -> WitnessLag:
        """What no checkpoint there covers."""


class _State(Collector):
    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        if self.snapshot is None:
            return
        figures = self.snapshot.figures
        yield _gauge("broker_ledger_answers", "1 while the ledger's figures could be read.", figures is not None)
        if figures is not None:
            yield from _ledger(figures)
        yield from _connectors(self.snapshot)
        yield from _reconciled(self.snapshot)
        yield from _webhooks(self.snapshot.webhooks)
        yield from _witnesses(self.snapshot)
        yield from _issuers(self.snapshot.issuers)
        yield from _canaries(self.snapshot)
        yield from _house(self.snapshot)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _ledger(figures: LedgerFigures) -> Iterator[Metric]:
    live = GaugeMetricFamily(
        "broker_live_leases", "Leases that may be alive upstream, by contract class.", labels=["class"]
    )
    for cls, count in sorted(figures.live_by_class.items()):
        live.add_metric([cls], count)
    yield live
    tightened = GaugeMetricFamily(
        "broker_leases_policy_tightened",
        "Living leases that the deploy set in force would not grant any more, by what it says instead.",
        labels=["outcome"],
    )
    for outcome in ("DENY", "NEEDS_APPROVAL", "UNKNOWN"):
        tightened.add_metric([outcome], figures.tightened.get(outcome, 0))
    yield tightened
    suspensions = GaugeMetricFamily("broker_suspensions", "Suspensions in force, by kind.", labels=["kind"])
    for kind in Kind:
        suspensions.add_metric([kind.value.lower()], figures.suspensions.get(kind.value, 0))
    yield suspensions
    reviews = GaugeMetricFamily(
        "broker_break_glass_reviews", "Reviews of break-glass that are owed; overdue ones block.", labels=["state"]
    )
    for state in sorted(OWED):
        reviews.add_metric([state.value.lower()], figures.reviews.get(state.value, 0))
    yield reviews
    yield GaugeMetricFamily(
        "broker_break_glass_live", "Leases got by break-glass whose end is not told yet.", figures.break_glass_live
    )
    yield _gauge(
        "broker_suspensions_tampered",
        "Suspensions whose record was changed by something else: they stop everything.",
        figures.suspensions_tampered,
    )
    yield _gauge("broker_open_tasks", "Open tasks.", figures.open_tasks)
    yield _gauge("broker_revocations_overdue", "Attempts whose due time has passed.", figures.overdue)
    yield _gauge(
        "broker_revocation_oldest_overdue_seconds",
        "How long the oldest is overdue.",
        figures.oldest_overdue.total_seconds(),
    )
    yield _gauge("broker_revocations_stuck", "Revocations that failed several times in a row.", figures.stuck)
    yield _gauge("broker_audit_head", "Sequence number of the last audit record.", figures.audit_head)
    yield _gauge(
        "broker_audit_outbox_records", "Audit records not exported yet.", figures.audit_head - figures.audit_exported
    )
    yield _gauge(
        "broker_audit_outbox_age_seconds",
        "Age of the oldest unexported one.",
        figures.oldest_unexported.total_seconds(),
    )


def _connectors(snapshot: Snapshot) -> Iterator[Metric]:
    done = CounterMetricFamily(
        "broker_revocations", "Revocation tries, by connector and result.", labels=["connector", "result"]
    )
    refused = GaugeMetricFamily(
        "broker_connector_root_refused",
        "1 while the upstream refuses the broker's own credential.",
        labels=["connector"],
    )
    opened = GaugeMetricFamily(
        "broker_connector_circuit_open",
        "1 while the upstream fails at one attempt after the other: it is tried now and then, and issues nothing.",
        labels=["connector"],
    )
    for name, tally in sorted(snapshot.tallies.items()):
        done.add_metric([name, "revoked"], tally.revoked)
        done.add_metric([name, "expired"], tally.expired)
        done.add_metric([name, "failed"], tally.failed)
    for name in sorted(snapshot.tallies.keys() | snapshot.roots_refused):
        refused.add_metric([name], float(name in snapshot.roots_refused))
    for name in sorted(snapshot.tallies.keys() | snapshot.circuits_open):
        opened.add_metric([name], float(name in snapshot.circuits_open))
    yield done
    yield refused
    yield opened


_RECONCILED = (
    ("broker_upstream_listed", "What the upstream listed as brokers' at the last inventory."),
    ("broker_upstream_unknown", "Upstream, ours, and not alive by the ledger: being ended."),
    ("broker_upstream_unknown_stuck", "Of them, those that failed to end several times in a row."),
    ("broker_upstream_missing", "Alive by the ledger, and not listed upstream."),
    ("broker_upstream_sweep_braked", "Unknown, and so many that nothing of it is ended before a person says so."),
    ("broker_reconciliation_failed", "1 where the last inventory could not be compared with the ledger."),
)


def _reconciled(snapshot: Snapshot) -> Iterator[Metric]:
    families = [GaugeMetricFamily(name, text, labels=["connector"]) for name, text in _RECONCILED]
    listed, unknown, stuck, missing, braked, failed = families
    for name in sorted(snapshot.orphans.keys() | snapshot.reconciled.keys()):
        figures, last = snapshot.orphans.get(name), snapshot.reconciled.get(name)
        if snapshot.figures is not None:  # else nobody knows
            unknown.add_metric([name], 0 if figures is None else figures.living)
            stuck.add_metric([name], 0 if figures is None else figures.stuck)
        if last is not None:
            missing.add_metric([name], last.missing)
            braked.add_metric([name], last.braked)
            failed.add_metric([name], float(bool(last.problem)))
            if last.listed is not None:
                listed.add_metric([name], last.listed)
    yield from families


def _webhooks(tallies: Mapping[str, WebhookTally]) -> Iterator[Metric]:
    label = ["destination"]
    done = CounterMetricFamily("broker_webhooks", "Webhook tries, by result.", labels=[*label, "result"])
    behind = GaugeMetricFamily("broker_webhook_lag_records", "Audit records not looked at for it yet.", labels=label)
    waiting = GaugeMetricFamily(
        "broker_webhook_lag_seconds", "Age of the event whose delivery fails; 0 while none does.", labels=label
    )
    for name, tally in sorted(tallies.items()):
        done.add_metric([name, "delivered"], tally.delivered)
        done.add_metric([name, "failed"], tally.failed)
        behind.add_metric([name], tally.behind)
        waiting.add_metric([name], tally.waiting.total_seconds())
    yield done
    yield behind
    yield waiting


def _witnesses(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("broker_recovery", "1 while the ledger is behind a witness: nothing is granted.", snapshot.recovery)
    label = ["witness"]
    done = CounterMetricFamily("broker_checkpoints", "Tries to send a checkpoint.", labels=[*label, "result"])
    behind = GaugeMetricFamily("broker_witness_lag_records", "Audit records no checkpoint there covers.", labels=label)
    age = GaugeMetricFamily("broker_witness_lag_seconds", "Age of the oldest of them.", labels=label)
    unread = GaugeMetricFamily("broker_witness_unread", "1 until the ledger was held against it.", labels=label)
    for name, tally in sorted(snapshot.witnesses.items()):
        done.add_metric([name, "delivered"], tally.delivered)
        done.add_metric([name, "failed"], tally.failed)
        behind.add_metric([name], tally.lag.records)
        age.add_metric([name], tally.lag.age.total_seconds())
        unread.add_metric([name], float(name in snapshot.unread))
    yield from (done, behind, age, unread)


def _issuers(tallies: Mapping[str, KeysTally]) -> Iterator[Metric]:
    tries = CounterMetricFamily("broker_oidc_keys", "Tries to fetch keys, by result.", labels=["issuer", "result"])
    age = GaugeMetricFamily(
        "broker_oidc_keys_age_seconds",
        "Since the keys in force were fetched; absent: there are none.",
        labels=["issuer"],
    )
    for issuer, tally in sorted(tallies.items()):
        tries.add_metric([issuer, "fetched"], tally.fetched)
        tries.add_metric([issuer, "failed"], tally.failed)
        if tally.age is not None:
            age.add_metric([issuer], tally.age)
    yield tries
    yield age


def _canaries(snapshot: Snapshot) -> Iterator[Metric]:
    label = ["connector", "kind"]
    measured = GaugeMetricFamily(
        "broker_canary_measured_seconds",
        "How long a canary's credential worked after its end, at most, by the newest measurement.",
        labels=label,
    )
    bound = GaugeMetricFamily("broker_canary_bound_seconds", "What the contract promises of it.", labels=label)
    age = GaugeMetricFamily("broker_canary_age_seconds", "Since that was measured.", labels=label)
    broken = GaugeMetricFamily("broker_canary_bound_broken", "1 while the contract is not kept.", labels=label)
    for each in snapshot.canaries:
        labels = [each.connector, each.kind.value]
        if each.measured is not None:
            measured.add_metric(labels, each.measured.total_seconds())
        bound.add_metric(labels, each.bound.total_seconds())
        if snapshot.now is not None:
            age.add_metric(labels, (snapshot.now - each.told_at).total_seconds())
        broken.add_metric(labels, float(each.broken))
    yield from (measured, bound, age, broken)


def _house(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("broker_ready", "1 while grants are given.", float(snapshot.ready))
    yield _gauge(
        "broker_revoker_stalled", "1 while the revoker's heartbeat is old: nothing is granted.", snapshot.stalled
    )
    yield CounterMetricFamily("broker_ticks_restarted", "How often the ticks had stopped.", snapshot.restarts)
    if snapshot.time is not None:
        doubted, behind, doubts = snapshot.time
        yield _gauge("broker_clock_doubted", "1 while the wall clock is not believed: nothing is granted.", doubted)
        yield _gauge("broker_clock_behind_seconds", "How far the wall clock is behind broker time.", behind)
        yield CounterMetricFamily("broker_clock_doubts", "How often it began to be doubted.", doubts)
    if snapshot.room is not None:
        yield _gauge("broker_ledger_full", "1 while the ledger's disk is full: nothing is granted.", snapshot.room.full)
        yield _gauge("broker_ledger_free_bytes", "What is free on the ledger's disk.", snapshot.room.free)
    yield _gauge("broker_agents", "Registered agents.", snapshot.agents)
    yield _gauge("broker_templates", "Scope templates in force.", snapshot.templates)
    yield _gauge(
        "broker_svid_expiry_timestamp_seconds",
        "When brokerd's own certificate expires.",
        snapshot.own_svid_expires.timestamp(),
    )
    yield _gauge(
        "broker_svid_overdue", "1 while brokerd's own SVID should have been renewed.", float(snapshot.own_svid_overdue)
    )
    roots = GaugeMetricFamily("broker_bundle_roots", "Roots in force, by trust domain.", labels=["trust_domain"])
    for trust_domain, count in sorted(snapshot.roots.items()):
        roots.add_metric([trust_domain], count)
    yield roots
    yield _gauge(
        "broker_tls_problems",
        "Identity material that could not be taken in; the last good stays.",
        snapshot.tls_problems,
    )
    if snapshot.access_review_overdue is not None:
        yield _gauge(
            "broker_access_review_overdue",
            "1 while a review of what agents could get is due by access_reviews.every.",
            float(snapshot.access_review_overdue),
        )
    digest = GaugeMetricFamily("broker_deploy_info", "The deploy set in force.", labels=["digest"])
    digest.add_metric([snapshot.deploy_digest], 1)
    yield digest
