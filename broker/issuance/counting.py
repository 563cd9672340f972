"""How one filed request stands: its votes counted by the rules and the people of the deploy set in force.

The one function that says whether people have agreed. It is asked inside the transaction of each vote, when the
request is redeemed, and for whoever looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from broker.approval.quorum import Ballot, PersonId, Tally, tally
from broker.approval.rules import ApprovalRule
from broker.approval.separation import Interest, interests, owners_of, person_id
from broker.errors import Denied, Reason, WrongState
from broker.identity.agent import Person
from broker.ports.access_requests import FiledRequest, Vote
from broker.ports.deploys import DeploySet


@dataclass(frozen=True, slots=True)
class Standing:
    """``rules`` are those it needs; ``interests`` everybody who may not approve it, and why."""

    rules: Mapping[str, ApprovalRule]
    tally: Tally
    interests: Mapping[PersonId, str]


def standing(filed: FiledRequest, deploy: DeploySet, sponsor: str, now: datetime) -> Standing:
    """Count the votes on ``filed`` now. ``sponsor`` is what its task claims.

    Barred is whoever had a part in it when it was asked, and whoever has one now. Raises :class:`Denied`
    (APPROVAL_NOT_HELD) where an approval that it needs is defined no more.
    """
    rules = {name: _rule(name, filed, deploy) for name in filed.approvals}
    at_present = interests(
        owners=owners_of([filed.principal], deploy.registry),
        sponsor=sponsor,
        on_behalf_of=(),
        delegators=(),
        people=deploy.people,
    )
    barred = _parts((*filed.interests, *at_present))
    groups = groups_now(deploy.people, now)
    ballots = [_ballot(vote, groups) for vote in filed.votes]
    return Standing(rules, tally(list(rules.values()), ballots, barred.keys()), barred)


def groups_now(people: Mapping[str, Person], now: datetime) -> dict[PersonId, frozenset[str]]:
    """The groups of everybody who is enabled."""
    return {person_id(person): person.groups for person in people.values() if person.enabled(now)}


def _ballot(vote: Vote, groups: Mapping[PersonId, frozenset[str]]) -> Ballot:
    """A vote with the groups that its giver has now, of those that were proven when it was given."""
    who = (vote.issuer, vote.subject)
    return Ballot(who, groups.get(who, frozenset()) & frozenset(vote.groups), vote.rule, vote.yes)


def check_terms(filed: FiledRequest, deploy: DeploySet) -> None:
    """Raises :class:`WrongState` where the template or the policies in force are not those that people were shown."""
    template = deploy.templates.get(filed.scope.template)
    if template is None or template.digest != filed.scope.template_digest:
        raise _changed(Reason.APPROVAL_TEMPLATE_CHANGED, filed, f"the template {filed.scope.template} has changed")
    if deploy.policies.digest != filed.policy_digest:
        raise _changed(Reason.APPROVAL_POLICY_CHANGED, filed, "the policies have changed")


def _changed(reason: Reason, filed: FiledRequest, what: str) -> WrongState:
    return WrongState(
        reason,
        f"{what} since access request {filed.id} was filed, so what people saw is not what would be granted.",
        hint="Ask again, under a fresh request id.",
        metadata={"accessRequestId": filed.id},
    )


def _rule(name: str, filed: FiledRequest, deploy: DeploySet) -> ApprovalRule:
    rule = deploy.approvals.get(name)
    if rule is None:
        raise Denied(
            Reason.APPROVAL_NOT_HELD,
            f"access request {filed.id} needs the approval {name}, which approvals.yaml does not define any more.",
            hint="Ask again, under a fresh request id.",
            metadata={"accessRequestId": filed.id, "approval": name},
        )
    return rule


def _parts(found: tuple[Interest, ...]) -> dict[PersonId, str]:
    parts: dict[PersonId, str] = {}
    for each in found:
        parts.setdefault(each.person, each.part)
    return parts
