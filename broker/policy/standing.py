"""Whether a grant stands: the decision behind a live lease, made again by the rules in force.

It is made on the facts it was made on, the hour included, so that it comes out otherwise only where rules do. What
policies look at now and nobody looked at then is taken as it is now. Belongs here: the verdict. Does not
belong here: what is done about it (``broker/issuance/tightening.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any

from broker.errors import BrokerError
from broker.identity.agent import Delivery
from broker.policy.recorded import Recorded, Unknown, made_again
from broker.policy.trial import Outcome, Rules, found
from broker.scope.model import OnPolicyChange, ScopeTemplate


class Standing(StrEnum):
    """What the rules in force say to a grant that was made."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    NEEDS_APPROVAL = "NEEDS_APPROVAL"  # an approval that is not among those it was granted with
    UNKNOWN = "UNKNOWN"  # the decision cannot be made again


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a grant stands, and what its template wants done where it does not."""

    standing: Standing
    reason: str = ""
    policies: tuple[str, ...] = ()
    why: str = ""
    on_policy_change: OnPolicyChange = OnPolicyChange.REPORT

    @property
    def stands(self) -> bool:
        """Whether it would be granted now."""
        return self.standing is Standing.ALLOW

    @property
    def opens(self) -> bool:
        """Whether it would be granted now, or with the approvals that are missing."""
        return self.standing in (Standing.ALLOW, Standing.NEEDS_APPROVAL)


@dataclass(frozen=True, slots=True)
class Held:
    """What a live lease lets its holder do, whatever its template says by now."""

    template: str
    connector: str
    access: str
    actions: Collection[str]


def reviewed(granted: Recorded | None, held: Held, present: Mapping[str, Any], rules: Rules) -> Verdict:
    """The verdict on one grant. Never raises: what cannot be decided is UNKNOWN, which is not a yes.

    ``granted`` None: what it was decided on is not known.
    """
    template = rules.templates.get(held.template)
    choice = _choice(template, {} if granted is None else granted.facts)
    if granted is None:
        return Verdict(
            Standing.UNKNOWN, why="the audit trail does not say what it was granted on", on_policy_change=choice
        )
    try:
        outcome = made_again(granted, rules, present)
    except Unknown as missing:
        return Verdict(Standing.UNKNOWN, why=str(missing), on_policy_change=choice)
    except Exception as failure:  # noqa: BLE001 - a decision that fails is none, and must not hide the others
        return Verdict(Standing.UNKNOWN, why=f"the decision failed: {type(failure).__name__}", on_policy_change=choice)
    if not outcome.allowed:
        return _refused(outcome, choice)
    if template is not None and (narrowed := _narrowed(held, template)):
        return Verdict(Standing.DENY, why=narrowed, on_policy_change=choice)
    return Verdict(Standing.ALLOW, policies=outcome.policies)


def reviewed_emergency(
    granted: Recorded | None, held: Held, present: Mapping[str, Any], rules: Rules, at_most: timedelta | None
) -> Verdict:
    """The verdict on one grant by break-glass: it stands on its template's section, and on no approval.

    ``at_most``: the maximum TTL of the section in force; None: there is none any more. ``granted`` None: a person's
    own, of which policy says nothing; an agent's does not stand where policy finally denies it, as it would not have
    been granted.
    """
    template = rules.templates.get(held.template)
    choice = _choice(template, {} if granted is None else granted.facts)
    if template is None or at_most is None:
        why = f"template {held.template} pre-authorises nobody for emergencies any more"
        return Verdict(Standing.DENY, why=why, on_policy_change=choice)
    if narrowed := _narrowed(held, template):
        return Verdict(Standing.DENY, why=narrowed, on_policy_change=choice)
    if granted is None:
        return Verdict(Standing.ALLOW)
    facts: dict[str, Any] = {**granted.facts, "delivery": Delivery.DIRECT.value}
    with suppress(BrokerError):  # of who is not registered any more the decision tells
        if tools := found(granted.agent, rules.registry).tools:
            facts["tool"] = min(tools)  # a person asked, and called none
    emergency = replace(template, max_ttl=at_most, mandatory=frozenset())
    asked = replace(granted, facts=facts)
    verdict = reviewed(asked, held, present, replace(rules, templates={**rules.templates, template.name: emergency}))
    return Verdict(Standing.ALLOW, policies=verdict.policies) if verdict.opens else verdict


def _choice(template: ScopeTemplate | None, facts: Mapping[str, Any]) -> OnPolicyChange:
    """What the template says; where it is gone, what it said when it granted."""
    if template is not None:
        return template.on_policy_change
    return OnPolicyChange(facts.get("on_policy_change", OnPolicyChange.REPORT))


def _refused(outcome: Outcome, choice: OnPolicyChange) -> Verdict:
    reason = outcome.reason.value if outcome.reason else ""
    lacking = f"the approval {', '.join(outcome.approvals)} is needed, and not held. " if outcome.approvals else ""
    why = lacking + " ".join((*outcome.explanations, *outcome.errors))
    return Verdict(Standing(outcome.effect.value), reason, outcome.policies, why.strip(), choice)


def _narrowed(held: Held, template: ScopeTemplate) -> str:
    """What of ``held`` its template does not give any more; empty where nothing."""
    if held.connector != template.connector:
        return f"template {template.name} is of connector {template.connector} by now"
    if held.access != template.access.value:
        return f"template {template.name} gives {template.access.value} access by now"
    more = sorted(set(held.actions) - set(template.actions))
    return f"template {template.name} does not give {', '.join(more)} any more" if more else ""
