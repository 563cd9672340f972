"""What an approver sees of one request: what it would do, first; what the agent says about it, marked as such.

Everything here is text that can be shown as it is: whatever an agent wrote has passed :func:`inert`. The effect is
said by the broker, from typed values; no word of it is the agent's.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from broker.approval.inert import inert
from broker.approval.separation import meant
from broker.errors import BrokerError
from broker.identity.agent import Agent, Person
from broker.identity.spiffe_id import SpiffeId
from broker.issuance.counting import Standing, check_terms, groups_now, standing
from broker.lease.credential import Contract
from broker.ports.access_requests import FiledRequest
from broker.ports.deploys import DeploySet
from broker.ports.tasks import Task


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing somebody said, whom nobody has checked."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class VoteSeen:
    """One vote. ``counts`` is False where who gave it has left the groups, is disabled or is barred by now."""

    person: str  # issuer#subject
    display_name: str
    yes: bool
    approval: str
    how: str
    note: str
    at: datetime
    counts: bool


@dataclass(frozen=True, slots=True)
class Review:
    """One request, ready to be decided on."""

    filed: FiledRequest
    effect: tuple[str, ...]  # what the credential will be able to do, in plain lines
    contract: Contract | None  # how it can be ended; None while its connector does not run
    agent: str  # the registry entry
    description: str
    tier: str
    owner: str
    claims: tuple[Claim, ...]
    plan: str
    plan_diff: str  # unified, to the plan that was approved last; empty without one
    plan_diff_base: str  # the access request of that plan
    votes: tuple[VoteSeen, ...]
    missing: tuple[str, ...]
    barred: tuple[str, ...]  # who may not approve, and why
    obstacle: str  # why it cannot be approved any more, whatever people say; empty


def review_of(
    filed: FiledRequest, task: Task, deploy: DeploySet, contract: Contract | None, last: tuple[str, str], now: datetime
) -> Review:
    """The review of ``filed``; ``last`` is the request whose plan was approved last, and that plan."""
    agent, obstacle = _agent(filed, deploy)
    try:
        check_terms(filed, deploy)
        stands: Standing | None = standing(filed, deploy, task.sponsor, now)
    except BrokerError as changed:
        stands, obstacle = None, obstacle or changed.message
    base, before = last if last[0] != filed.id else ("", "")
    return Review(
        filed=filed,
        effect=(*_effect(filed, contract), *_behind(task), *_risk(filed, deploy)),
        contract=contract,
        agent=filed.principal,
        description=inert(agent.description) if agent else "",
        tier=agent.tier.value if agent else "",
        owner=_shown(agent.owner) if agent else "",
        claims=tuple(_claims(filed, task, deploy)),
        plan=inert(filed.plan, lines=True),
        plan_diff=_diff(before, filed.plan, base, filed.id),
        plan_diff_base=base,
        votes=tuple(_votes(filed, deploy, stands, now)),
        missing=tuple(str(each) for each in stands.tally.missing) if stands else (),
        barred=tuple(_barred(stands, deploy)) if stands else (),
        obstacle=inert(obstacle),
    )


def _agent(filed: FiledRequest, deploy: DeploySet) -> tuple[Agent | None, str]:
    try:
        return deploy.registry.find(SpiffeId.parse(filed.holder)), ""
    except BrokerError as gone:
        return None, gone.message


def _bound_to(contract: Contract) -> str:
    places = " and ".join(" or ".join(map(inert, each)) for each in contract.networks)
    return f"{contract.binding.value} ({places})" if places else contract.binding.value


def _effect(filed: FiledRequest, contract: Contract | None) -> Iterator[str]:
    scope = filed.scope
    yield f"Agent {filed.holder} gets a credential of template {scope.template} ({scope.access.value} access)."
    yield f"It can {', '.join(scope.actions)} on {inert(scope.resource)}."
    yield f"Where: account {inert(scope.account)}, environment {inert(scope.environment)}."
    for name, value in sorted(scope.parameters.items()):
        yield f"Parameter {name} = {inert(value)}"
    yield f"For {scope.ttl} from the moment it is redeemed, once, within {filed.redeem_within} of the last yes."
    if filed.request.recipient_public_key:
        yield "It is delivered sealed to a key that the agent named."
    if filed.request.wrap is not None:
        yield (
            f"It is kept at the upstream for one reader, for {filed.request.wrap} at most: whoever shows the token that"
            " the agent gets there first has it, once, and may be somebody else."
        )
    if filed.request.subject_public_key:
        digest = hashlib.sha256(filed.request.subject_public_key.encode()).hexdigest()
        yield f"It certifies a key that the agent named (SHA-256 of what was sent: {digest})."
    if contract is None:
        yield f"Connector {scope.connector} is not running: nothing can be issued at the moment."
        return
    early = "cannot be ended before it expires" if contract.on_revoke is None else f"ends within {contract.on_revoke}"
    yield f"Ending it: {contract.cls.value}; revoked, it {early}. Bound to: {_bound_to(contract)}."
    yield f"Past its deadline it may still work for {contract.on_expiry}."
    for dead, bound, words in (
        ("broker", contract.on_broker_dead, contract.broker_dead),
        ("upstream", contract.on_upstream_dead, contract.upstream_dead),
    ):
        told = "nothing bounds it" if bound is None else f"for at most {bound} past its deadline"
        yield f"If the {dead} is dead: {told}. {inert(words)}"


def _behind(task: Task) -> Iterator[str]:
    human = task.on_behalf_of
    if human is not None:
        yield f"It acts for {inert(human.display_name)} ({inert(human.id)}), as that person's own login proved."


def _risk(filed: FiledRequest, deploy: DeploySet) -> Iterator[str]:
    """What operators declared of the template; nothing where it is another one by now, which is an obstacle."""
    template = deploy.templates.get(filed.scope.template)
    if template is not None and template.digest == filed.scope.template_digest:
        risk = template.risk
        yield (
            f"Declared of the template: {risk.sensitivity.value} data, blast radius {risk.blast_radius.value},"
            f" {risk.reversibility.value}; it changes: {inert(risk.change_type)}."
        )


def _claims(filed: FiledRequest, task: Task, deploy: DeploySet) -> Iterator[Claim]:
    request = filed.request
    texts = (
        ("task purpose", task.purpose),
        ("task ticket", task.ticket),
        ("task sponsor", task.sponsor),
        ("step", request.step),
        ("intent", request.intent),
        ("reason", request.reason),
        ("ticket", request.ticket),
        ("tool call", filed.tool_call),
    )
    yield from (Claim(name, inert(text, lines=name == "tool call")) for name, text in texts if text)
    if task.sponsor and not meant(task.sponsor, deploy.people):
        yield Claim("task sponsor, as people.yaml knows them", "nobody: this text names no one there")
    for name, text in (("prompt", request.prompt), ("tool call", request.tool_call), ("plan", request.plan)):
        if text:
            yield Claim(f"{name} digest", str(text))


def _diff(before: str, after: str, base: str, name: str) -> str:
    if not base or not before:
        return ""
    # Lines end where a line feed is: whatever else could pass for an end of line is shown as what it is.
    texts = (before.split("\n"), after.split("\n"))
    lines = difflib.unified_diff(*texts, f"plan of {base}", f"plan of {name}", lineterm="")
    return "\n".join(inert(line) for line in lines)


def _votes(filed: FiledRequest, deploy: DeploySet, stands: Standing | None, now: datetime) -> Iterator[VoteSeen]:
    groups = groups_now(deploy.people, now)
    names = {(person.issuer, person.subject): person.display_name for person in deploy.people.values()}
    for vote in filed.votes:
        who = (vote.issuer, vote.subject)
        rule = stands.rules.get(vote.rule) if stands else None
        held = groups.get(who, frozenset()) & frozenset(vote.groups)
        has_say = rule is not None and any(each.group in held for each in rule.any_of)
        barred = stands is not None and who in stands.interests
        yield VoteSeen(
            person=f"{vote.issuer}#{vote.subject}",
            display_name=inert(names.get(who, "")),
            yes=vote.yes,
            approval=vote.rule,
            how=vote.how,
            note=inert(vote.note),
            at=vote.at,
            counts=not vote.yes or (has_say and not barred),
        )


def _barred(stands: Standing, deploy: DeploySet) -> Iterator[str]:
    names = {(person.issuer, person.subject): person for person in deploy.people.values()}
    for who, part in stands.interests.items():
        yield f"{_shown(names[who]) if who in names else '#'.join(who)} {part}"


def _shown(person: Person) -> str:
    return f"{inert(person.display_name)} ({inert(person.id)})"
