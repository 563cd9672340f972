"""Which upstreams do not answer at the moment: one circuit per connector and kind of work, opened by failures in a row.

An open circuit spaces out tries: nothing is asked of the upstream until a moment, then one try alone, and each that
fails doubles the wait up to a cap, for ever. So an upstream that is down is not run against by everything that is due,
and what others wait for is not held up; nothing is ever given up. While a circuit of a connector is open, issuing by it
is refused at once: what it would issue it could perhaps not end. Failures of distinct attempts count, because one that
fails again and again is a trouble of its own. Issuing that fails never spaces out revoking.

An upstream that says when it wants to be asked again (429, 503 with Retry-After) is left alone until then. Time and
chance are arguments; nothing is kept over a restart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.errors import NotReady, Reason
from broker.lease.backoff import LONGEST_RETRY_AFTER, delay
from broker.lease.root import Work

# So many distinct attempts fail in a row, with no success between, until the circuit opens.
FAILURES = 5
# A try of an open circuit that nothing was heard of for so long counts as none, and another may be made.
LOST_AFTER = timedelta(seconds=30)
LONGEST_WHY = 500


@dataclass(slots=True)
class Circuit:
    """Of one connector and kind of work."""

    failed: set[str] = field(default_factory=set)  # attempts, up to FAILURES
    why: str = ""  # the last failure
    since: datetime | None = None  # open since then; None: closed
    openings: int = 0  # tries of the open circuit that failed, and the first opening
    until: datetime | None = None  # nothing is asked before
    trying: datetime | None = None  # since when one try is under way although it is open

    def fail(self, attempt: str, why: str, now: datetime, jitter: float, retry_after: timedelta | None) -> None:
        """One failure more."""
        self.why = why
        if len(self.failed) < FAILURES:
            self.failed.add(attempt)
        if len(self.failed) >= FAILURES and not (self.since and self.until and now < self.until):
            # Not by what was under way when it opened: that is one trouble, not many.
            self.since = self.since or now
            self.openings += 1
            self.until, self.trying = now + delay(self.openings, jitter, retry_after), None
        elif retry_after is not None:
            self.until = max(self.until or now, now + min(retry_after, LONGEST_RETRY_AFTER))

    def wait(self, now: datetime) -> timedelta:
        """How long nothing may be asked; not positive: something may."""
        if self.until is not None and now < self.until:
            return self.until - now
        if self.since is not None and self.trying is not None:
            return self.trying + LOST_AFTER - now
        return timedelta(0)


class Breakers:
    """Every connector's. Not locked: it belongs to the event loop."""

    def __init__(self) -> None:
        self._circuits: dict[tuple[str, Work], Circuit] = {}

    def failed(
        self,
        connector: str,
        work: Work,
        attempt: str,
        why: str,
        now: datetime,
        jitter: float,
        retry_after: timedelta | None = None,
    ) -> None:
        """The upstream did not do its part for ``attempt``: no answer, an error of its own, or not now."""
        circuit = self._circuits.setdefault((connector, work), Circuit())
        circuit.fail(attempt, why, now, jitter, retry_after)

    def works(self, connector: str, work: Work) -> None:
        """The upstream has just done its part. Who can issue is there for revoking too, but not the other way round."""
        self._circuits.pop((connector, work), None)
        if work is Work.ISSUE:
            self._circuits.pop((connector, Work.REVOKE), None)

    def untold(self, connector: str, work: Work) -> None:
        """A try came to something that says nothing of the upstream: of an open circuit another may be made."""
        circuit = self._circuits.get((connector, work))
        if circuit is not None:
            circuit.trying = None

    def allowance(self, connector: str, work: Work, most: int, now: datetime) -> int:
        """How many tries may begin now, of at most ``most``: all, none, or the one that an open circuit takes."""
        circuit = self._circuits.get((connector, work))
        if circuit is None:
            return most
        if circuit.wait(now) > timedelta(0):
            return 0
        return min(most, 1) if circuit.since is not None else most

    def begin(self, connector: str, work: Work, now: datetime) -> None:
        """A try begins that was allowed: of an open circuit it is the only one."""
        circuit = self._circuits.get((connector, work))
        if circuit is not None and circuit.since is not None:
            circuit.trying = now

    def check(self, connector: str, now: datetime) -> None:
        """Raises :class:`NotReady` (CONNECTOR_CIRCUIT_OPEN) where nothing is issued for now. Else a try may begin."""
        for work in (Work.REVOKE, Work.ISSUE):
            circuit = self._circuits.get((connector, work))
            if circuit is not None and circuit.since is not None and (wait := circuit.wait(now)) > timedelta(0):
                raise NotReady(
                    Reason.CONNECTOR_CIRCUIT_OPEN,
                    f"the upstream of connector {connector} does not do its part, so nothing is issued by it for now.",
                    hint="Retry after the time told; operators: see operators.md, `broker_connector_circuit_open`.",
                    metadata={"connector": connector},
                    retry_after=max(wait.total_seconds(), 1.0),
                )
        self.begin(connector, Work.ISSUE, now)

    def only(self, connectors: Collection[str]) -> None:
        """There are no others any more."""
        kept = set(connectors)
        self._circuits = {key: circuit for key, circuit in self._circuits.items() if key[0] in kept}

    @property
    def open(self) -> Mapping[str, Circuit]:
        """By connector, the circuit that is open now; revoking's first."""
        ordered = sorted(self._circuits.items(), key=lambda item: item[0][1] is Work.REVOKE)
        return {connector: circuit for (connector, _), circuit in ordered if circuit.since is not None}

    def told(self) -> Mapping[str, str]:
        """The same in words, for people."""
        return {
            name: f"its circuit is open since {circuit.since.isoformat()}: its upstream failed at one attempt after the"
            f" other ({circuit.why[:LONGEST_WHY]}); nothing is issued, and what is owed is tried one by one"
            for name, circuit in self.open.items()
            if circuit.since is not None
        }
