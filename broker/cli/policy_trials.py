"""Deploy sets with which requests can be tried: what ``broker policy`` and the project's own tests both use.

Belongs here: a set made ready, its tests judged, which policies no test made decide. Does not belong here: how
that is printed, and how a request is typed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from broker.connectors.contracts import contract_of
from broker.deployfiles import listing
from broker.deployfiles.load import build, policy_tests
from broker.deployfiles.policy_tests import PolicyTest
from broker.policy.trial import Outcome, Rules, tried


@dataclass(frozen=True, slots=True)
class TrialSet:
    """One deploy set, and the tests that lie beside its policies."""

    directory: Path
    rules: Rules
    tests: tuple[PolicyTest, ...]
    digest: str  # of the whole set
    approvals: frozenset[str] = frozenset()  # that approvals.yaml has

    def place(self, policy: str) -> str:
        """File and line of a policy of the set."""
        statement = self.rules.policies.statements[policy]
        return f"{self.directory / statement.file}:{statement.line}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A test, what was decided, and what of its expectation that is not (names of fields; none: it passed)."""

    test: PolicyTest
    outcome: Outcome
    unmet: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything expected was decided."""
        return not self.unmet


def trial_set(directory: Path, *, for_review: bool = False) -> TrialSet:
    """The set in ``directory``, read once. Raises :class:`~broker.files.Problems`; ``for_review`` as in build()."""
    files = listing.read_set(directory)
    deploy = build(files, to_serve=for_review, for_review=for_review)
    contracts = {name: contract_of(spec) for name, spec in deploy.connectors.items()}
    rules = Rules(
        deploy.registry, deploy.templates, deploy.policies, contracts, deploy.denied, deploy.people, deploy.shadow
    )
    return TrialSet(directory, rules, tuple(policy_tests(files)), deploy.digest, frozenset(deploy.approvals))


def judged(trials: TrialSet) -> tuple[Judged, ...]:
    """Every test of the set, tried."""
    outcomes = ((test, tried(test.trial, trials.rules)) for test in trials.tests)
    return tuple(Judged(test, outcome, test.expect.unmet(outcome)) for test, outcome in outcomes)


def never_decisive(trials: TrialSet, results: Iterable[Judged]) -> tuple[str, ...]:
    """Ids of policies that decided in no test that passed: nobody would notice if they were gone."""
    decisive = {policy for result in results if result.passed for policy in result.outcome.policies}
    return tuple(sorted(trials.rules.policies.statements.keys() - decisive))
