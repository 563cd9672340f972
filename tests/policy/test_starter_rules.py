"""What the starter set promises (deploy/dev/README.md), said once more and held against every combination.

Nothing of the policies is read here. Whatever is asked for is asked by somebody whom nothing else would stop: of every
role, in every environment, with a ticket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.cli.policy_trials import TrialSet, trial_set
from broker.deployfiles.policy_tests import DEFAULT_TIME
from broker.identity.agent import Tier
from broker.policy.decision import Effect
from broker.policy.facts import NOTHING_KNOWN, names_of_grant, with_groups
from broker.policy.trial import Outcome, Supposed, Trial, tried
from broker.scope.model import AccessClass, Reversibility, Sensitivity
from broker.scope.request import AccessRequest
from tests.deployfiles.test_broken import private_copy
from tests.house.project import ROOT

ENVIRONMENTS = frozenset({"dev", "staging", "production"})
ROLES = frozenset({"analyst", "migrator", "releaser", "executor", "planner", "validator", "reporter"})
CHANGE_TYPES = ("data", "identity", "network", "security-group", "secrets")
# Of what has an order, the last one that passes and the first one that does not.
REVERSIBILITY = (Reversibility.REVERSIBLE, Reversibility.HARD)
SENSITIVITY = (Sensitivity.CONFIDENTIAL, Sensitivity.RESTRICTED)
GUARDED = frozenset({"identity", "network", "security-group", "secrets"})
ALL = frozenset({"change", "production-change", "restricted-data", "security", "two-people"})


class Asked(NamedTuple):
    """One combination."""

    tier: Tier
    access: AccessClass
    environment: str
    change_type: str
    reversibility: Reversibility
    sensitivity: Sensitivity
    plan: str = "said"
    promoted: bool = True
    held: frozenset[str] = frozenset()

    @property
    def changes(self) -> bool:
        return self.access is not AccessClass.READ

    def needs(self) -> frozenset[str]:
        """The approvals that it takes, at least."""
        production = self.environment == "production"
        guarded = self.access in GUARDED or self.change_type in GUARDED
        final = self.access is AccessClass.DESTRUCTIVE or self.reversibility is not Reversibility.REVERSIBLE
        return frozenset(
            name
            for name, needed in {
                "restricted-data": self.sensitivity is Sensitivity.RESTRICTED,
                "production-change": self.changes and production,
                "change": self.changes and not production and self.tier is Tier.SEMI_AUTONOMOUS,
                "security": self.changes and guarded,
                "two-people": self.changes and final,
            }.items()
            if needed
        )

    def never(self) -> bool:
        """Whether no approval opens it."""
        if self.environment == "production" and not self.promoted:
            return True
        return self.changes and (self.tier is Tier.ADVISORY or not self.plan)


@pytest.fixture
def dev(tmp_path: Path) -> TrialSet:
    return trial_set(private_copy(ROOT / "deploy/dev", tmp_path / "dev"))


def outcome(dev: TrialSet, asked: Asked, approvals: frozenset[str] = frozenset(), ttl: int = 60) -> Outcome:
    supposed = Supposed(
        template_environments=ENVIRONMENTS,
        agent_environments=ENVIRONMENTS,
        access=asked.access,
        risk={
            "change_type": asked.change_type,
            "reversibility": asked.reversibility,
            "sensitivity": asked.sensitivity,
            "promoted": asked.promoted,
        },
        agent={"tier": asked.tier, "roles": ROLES, "promoted": asked.promoted},
        situation=replace(NOTHING_KNOWN, approvals=approvals, active_grants=asked.held),
    )
    request = AccessRequest(
        request_id="r",
        template="orders-readwrite",
        task_id="t",
        account="dev",
        environment=asked.environment,
        resource="orders",
        ttl=timedelta(seconds=ttl),
        intent="x",
        reason="x",
        ticket="T-1",
        plan=asked.plan,
    )
    return tried(Trial("releaser", request, DEFAULT_TIME, supposed=supposed), dev.rules)


def every(*plans: str, promoted: bool = True) -> Iterator[Asked]:
    kinds = (Tier, AccessClass, sorted(ENVIRONMENTS), CHANGE_TYPES, REVERSIBILITY, SENSITIVITY, plans)
    return (Asked(*each, promoted=promoted) for each in product(*kinds))


def test_nothing_goes_through_that_takes_people(dev: TrialSet) -> None:
    for asked in every("said"):
        alone = outcome(dev, asked)
        if asked.never():
            assert alone.effect is Effect.DENY, asked
        elif asked.needs():
            assert (alone.effect, set(alone.approvals)) == (Effect.NEEDS_APPROVAL, asked.needs()), asked
        else:
            assert alone.allowed, asked  # low risk does not wait


@pytest.mark.slow
def test_each_approval_is_needed_and_together_they_are_enough(dev: TrialSet) -> None:
    for asked in every("said"):
        needed = asked.needs()
        if asked.never() or not needed:
            continue
        assert outcome(dev, asked, needed).allowed, asked
        for one in needed:
            less = outcome(dev, asked, ALL - {one})
            assert (less.effect, less.approvals) == (Effect.NEEDS_APPROVAL, (one,)), asked


@pytest.mark.slow
def test_what_no_approval_opens(dev: TrialSet) -> None:
    for asked in (*every(""), *every("said", promoted=False)):
        if asked.never():
            assert outcome(dev, asked, ALL).effect is Effect.DENY, asked


def test_no_change_of_production_beside_one_elsewhere(dev: TrialSet) -> None:
    """In either order, whatever the class of the one and of the other."""
    kinds = product(AccessClass, AccessClass, sorted(ENVIRONMENTS), sorted(ENVIRONMENTS))
    for held, access, where, environment in kinds:
        grants = frozenset(names_of_grant("some-template", held, where))
        assert with_groups({"some-template", f"{held}:{where}"}) == grants
        asked = Asked(
            Tier.AUTONOMOUS, access, environment, "data", Reversibility.REVERSIBLE, Sensitivity.INTERNAL, held=grants
        )
        toxic = AccessClass.READ not in (held, access) and (where == "production") != (environment == "production")
        assert outcome(dev, asked, ALL).allowed is not toxic, (held, where, access, environment)


def test_autonomy_is_short(dev: TrialSet) -> None:
    for access in AccessClass:
        asked = Asked(Tier.AUTONOMOUS, access, "dev", "data", Reversibility.REVERSIBLE, Sensitivity.INTERNAL)
        assert outcome(dev, asked, ALL, ttl=300).allowed
        assert not outcome(dev, asked, ALL, ttl=301).allowed
