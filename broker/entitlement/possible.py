"""What an agent could get today: every template, account and environment, decided by the function that decides.

Belongs here: which requests stand for all that there could be, and the widest answer to each kind. Does not belong
here: what comes after policy (quotas, suspensions, a task's state), and what others could hand on, which is a part of
what they could get themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from broker.entitlement.circumstances import asking, ways
from broker.entitlement.examples import Filled, Tries, tries
from broker.policy.decision import Effect
from broker.policy.trial import Outcome, Rules, tried
from broker.scope.model import ScopeTemplate

_WIDEST_FIRST = (Effect.ALLOW, Effect.NEEDS_APPROVAL, Effect.DENY)
# Values asked for, by parameter, by template.
Seen = Mapping[str, Mapping[str, Iterable[str]]]


@dataclass(frozen=True, slots=True)
class Possible:
    """The widest answer for one agent, template, account and environment.

    ``condition``: under which circumstance, in words; empty for none beyond what an agent can claim. ``examples``:
    values that have this answer; ``whole``: whether all that could have another one were tried.
    """

    agent: str
    template: str
    access: str
    account: str
    environment: str
    effect: Effect
    approvals: tuple[str, ...]
    policies: tuple[str, ...]
    reason: str  # of a DENY
    condition: str
    examples: tuple[str, ...]
    whole: bool

    @property
    def reachable(self) -> bool:
        """Whether it can be had, if need be with people's yes."""
        return self.effect is not Effect.DENY

    @property
    def width(self) -> tuple[int, int]:
        """Smaller is wider: by its effect, then by how many approvals stand before it."""
        return _WIDEST_FIRST.index(self.effect), len(self.approvals)


class Evaluation:
    """One set of rules, at one moment, tried for one agent after the other."""

    def __init__(self, rules: Rules, now: datetime, seen: Seen) -> None:
        self._rules = rules
        self.now = now
        self._tries: dict[str, Tries] = {
            name: tries(template, rules.policies, seen.get(name, {})) for name, template in rules.templates.items()
        }

    def of(self, agent: str) -> Iterator[Possible]:
        """Everything for one SPIFFE ID, by template, account and environment."""
        for _, template in sorted(self._rules.templates.items()):
            for account in sorted(template.accounts):
                for environment in sorted(template.environments):
                    yield self._widest(agent, template, account, environment)

    def _widest(self, agent: str, template: ScopeTemplate, account: str, environment: str) -> Possible:
        found: Possible | None = None
        values = self._tries[template.name]
        for filled in values.values:
            this = self._answer(agent, template, account, environment, filled, values.whole)
            if found is None or this.width < found.width:
                found = this
            elif this.width == found.width:
                found = _with_example(found, filled)
        return found or _untried(agent, template, account, environment)

    def _answer(
        self, agent: str, template: ScopeTemplate, account: str, environment: str, filled: Filled, whole: bool
    ) -> Possible:
        best: Possible | None = None
        trial = asking(agent, template, account, environment, filled, self.now)
        for condition, way in ways(trial, self._rules, template):
            this = _possible(agent, template, account, environment, tried(way, self._rules), condition, filled, whole)
            if best is None or this.width < best.width:
                best = this
            if best.effect is Effect.ALLOW:
                break
        assert best is not None  # noqa: S101 - there is always the request as it is
        return best


def _possible(
    agent: str,
    template: ScopeTemplate,
    account: str,
    environment: str,
    outcome: Outcome,
    condition: str,
    filled: Filled,
    whole: bool,
) -> Possible:
    return Possible(
        agent=agent,
        template=template.name,
        access=template.access.value,
        account=account,
        environment=environment,
        effect=outcome.effect,
        approvals=outcome.approvals,
        policies=outcome.policies,
        reason="" if outcome.reason is None else outcome.reason.value,
        condition=condition,
        examples=(str(filled),),
        whole=whole,
    )


def _with_example(found: Possible, filled: Filled) -> Possible:
    return replace(found, examples=(*found.examples, str(filled)))


def _untried(agent: str, template: ScopeTemplate, account: str, environment: str) -> Possible:
    """No value of its parameters could be made up: nobody knows, and that is told."""
    nothing = Outcome(Effect.DENY)
    unknown = _possible(agent, template, account, environment, nothing, "", Filled("", ()), whole=False)
    return replace(unknown, reason=NOT_TRIED, examples=())


# Stands for a reason where nothing was decided.
NOT_TRIED = "NOT_TRIED"
