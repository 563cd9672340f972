"""Names in templates and policies that must name something in the rest of the set."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from broker.deployfiles.models import TemplateFile
from broker.deployfiles.read import Read
from broker.files import Problem
from broker.identity.agent import Person, Registry
from broker.policy.facts import names_of_grant
from broker.policy.mentions import WORDS, Kind, Mention
from broker.scope.model import ScopeTemplate


def unknown_segments(files: Iterable[Read[TemplateFile]], registry: Registry) -> Iterator[Problem]:
    """Parameters that take their value from a segment no pattern names: nobody could ever use the template."""
    known = segments(registry)
    for file in files:
        for name, spec in file.content.parameters.items():
            if spec.from_identity and spec.from_identity not in known:
                at = ("parameters", name, "from_identity")
                message = f"no spiffe_id_pattern of agents/ names a segment {spec.from_identity}"
                yield file.problem(at, message, f"There is: {_listed(known)}.")


def unknown_mentions(
    mentions: Iterable[Mention],
    registry: Registry,
    templates: Mapping[str, ScopeTemplate],
    people: Mapping[str, Person],
    approvals: Collection[str] | None,
) -> Iterator[tuple[Mention, str, str]]:
    """Each name in a policy that names nothing, with message and hint. ``approvals``: None where not known."""
    entries = {agent.principal for agent in registry} | {entry.principal for entry in registry.patterns}
    if registry.own is not None:
        entries |= {registry.own.principal}
    persons = {f"{person.issuer}#{person.subject}" for person in people.values()}
    known_segments = segments(registry)
    kinds = {
        name
        for each in templates.values()
        for environment in each.environments
        for name in names_of_grant(each.name, each.access, environment)
    }
    for each in mentions:
        match each.kind:
            case Kind.AGENT:
                if not registry.registers(each.name):
                    hint = "It is compared byte for byte with the SPIFFE IDs and patterns of agents/."
                    yield each, f"{each.name!a} is no registered agent", hint
            case Kind.PERSON:
                if each.name not in persons:
                    yield each, f"{each.name!a} is nobody of people.yaml", "A person is written issuer#subject."
            case Kind.TEMPLATE:
                if each.name not in templates:
                    yield each, f"{each.name!a} is no template", f"There is: {_listed(templates)}."
            case Kind.ENTRY:
                if each.name not in entries:
                    hint = f"principal.entry is the name of a file, without .yaml. There is: {_listed(entries)}."
                    yield each, f"{each.name!a} is no file of agents/", hint
            case Kind.APPROVAL:
                if approvals is not None and each.name not in approvals:
                    yield each, f"{each.name!a} is no rule of approvals.yaml", f"There is: {_listed(approvals)}."
            case Kind.GRANT:
                if each.name not in kinds:
                    hint = f"Write a template, ACCESS:ENVIRONMENT or change:ENVIRONMENT. There is: {_listed(kinds)}."
                    yield each, f"{each.name!a} is nothing that can be granted", hint
            case Kind.SEGMENT:
                if each.name not in known_segments:
                    message = f"no spiffe_id_pattern of agents/ names a segment {each.name!a}"
                    yield each, message, f"There is: {_listed(known_segments)}."
            case kind if kind in WORDS:
                if each.name not in WORDS[kind]:
                    there_is = ", ".join(f"{str(word)!r}" for word in sorted(WORDS[kind]))
                    yield each, f"{each.name!a} is no {kind}", f"There is: {there_is}."


def doubtful_mentions(
    mentions: Iterable[Mention], registry: Registry, templates: Mapping[str, ScopeTemplate]
) -> Iterator[tuple[Mention, str, str]]:
    """Each word that no agent and no template has: the policy decides about nothing, which may be meant."""
    agents = (*registry, *registry.patterns)
    known: dict[Kind, set[str]] = {
        Kind.ENVIRONMENT: {
            *(name for each in templates.values() for name in each.environments),
            *(name for agent in agents for name in agent.environments),
        },
        Kind.ROLE: {role for agent in agents for role in agent.roles},
        Kind.ACCOUNT: {account for each in templates.values() for account in each.accounts},
        Kind.CONNECTOR: {each.connector for each in templates.values()},
    }
    for each in mentions:
        words = known.get(each.kind)
        if words is not None and each.name not in words:
            yield each, f"no agent or template has the {each.kind} {each.name!a}", f"There is: {_listed(words)}."


def segments(registry: Registry) -> frozenset[str]:
    """Every name that some pattern gives to a segment."""
    return frozenset(name for entry in registry.patterns for name in entry.pattern.names)


def _listed(names: Collection[str]) -> str:
    told = sorted(names)
    return (", ".join(told[:8]) + (f" and {len(told) - 8} more" if len(told) > 8 else "")) or "none"
