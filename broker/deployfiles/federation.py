"""trust_domains.yaml: which agents of other trust domains may be registered at all.

Whose SVIDs are accepted is brokerd's configuration (``identity.federates_with``); that opens the door to
every workload their authority cares to name. Belongs here: the narrower rule, per trust domain, that no file
under ``agents/`` can widen: which ids, and up to which environments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from broker.config import TrustDomain
from broker.deployfiles.models import AgentFile, Words
from broker.deployfiles.read import Read
from broker.errors import Unauthenticated
from broker.files import Model, Problem
from broker.identity.pattern import Anything, IdPattern, OneOf, Restriction, split
from broker.identity.spiffe_id import SpiffeId

FILE = "trust_domains.yaml"
# Any trust domain: the path is what is looked at.
_SOME_DOMAIN = "spiffe://trust.domain"

# A path, as what each of its segments may be.
_Path = tuple[Restriction, ...]


def _allowed(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be a path, which begins with /")
    _path_of(_SOME_DOMAIN + value)
    return value


AllowedPath = Annotated[str, AfterValidator(_allowed)]


class FederatedEntry(Model):
    """One trust domain beside the broker's own."""

    allow: list[AllowedPath] = Field(
        min_length=1, max_length=256, description="Paths of its SPIFFE IDs; {name} stands for one whole segment."
    )
    environments: Words = Field(min_length=1, description="No agent of it gets beyond these.")


class TrustDomainsFile(Model):
    """trust_domains.yaml."""

    trust_domains: dict[TrustDomain, FederatedEntry] = Field(min_length=1)


def federation_problems(
    rules: Read[TrustDomainsFile] | None, agents: Sequence[Read[AgentFile]], own: str
) -> Iterator[Problem]:
    """What ``rules`` do not allow of ``agents``; ``own`` is the broker's own trust domain, or empty if not known.

    Where it is not known (a deploy directory is checked by itself), all agents without a rule must be of one.
    """
    federated: Mapping[str, FederatedEntry] = rules.content.trust_domains if rules else {}
    if rules is not None and own in federated:
        hint = "A federated trust domain never stands for the own one. Leave it out."
        yield rules.problem(("trust_domains", own), "is the broker's own trust domain", hint)
    others: dict[str, list[Read[AgentFile]]] = {}
    for agent in agents:
        domain = _trust_domain(agent.content)
        if domain in federated:
            yield from _outside(agent, federated[domain], domain)
        elif domain:
            others.setdefault(domain, []).append(agent)
    home = own or max(others, key=lambda name: (len(others[name]), name), default="")
    for domain, files in sorted(others.items()):
        if domain != home:
            for agent in files:
                hint = f"If its agents shall be registered, say which of them in {FILE}."
                told = f"is of the trust domain {domain}, which is not the broker's own ({home}) and has no rule"
                yield agent.problem((_field(agent.content),), told, hint)


def _outside(agent: Read[AgentFile], rule: FederatedEntry, domain: str) -> Iterator[Problem]:
    entry = agent.content
    asked = _path_of(entry.spiffe_id or entry.spiffe_id_pattern, entry)
    if not any(_covers(_path_of(_SOME_DOMAIN + each), asked) for each in rule.allow):
        told = f"is not among what {FILE} allows of {domain}"
        yield agent.problem((_field(entry),), told, f"Allowed: {', '.join(rule.allow)}.")
    for index, environment in enumerate(entry.environments):
        if environment not in rule.environments:
            told = f"{environment} is more than {FILE} allows of {domain}"
            yield agent.problem(("environments", index), told, f"Allowed: {', '.join(rule.environments)}.")


def _covers(allowed: _Path, asked: _Path) -> bool:
    """Whether every id that ``asked`` stands for is one that ``allowed`` does."""
    return len(allowed) == len(asked) and all(_wider(one, other) for one, other in zip(allowed, asked, strict=True))


def _wider(allowed: Restriction, asked: Restriction) -> bool:
    if isinstance(allowed, Anything):
        return True
    return isinstance(allowed, OneOf) and isinstance(asked, OneOf) and asked.values <= allowed.values


def _path_of(text: str, entry: AgentFile | None = None) -> _Path:
    """The path of an id or a pattern. Raises :class:`ValueError` for what is neither."""
    if "{" in text:
        restrictions = {name: each.build() for name, each in entry.segments.items()} if entry else {}
        return tuple(step.restriction for step in IdPattern.parse(text, restrictions).steps)
    try:
        return tuple(OneOf(frozenset({part})) for part in split(SpiffeId.parse(text)))
    except Unauthenticated as error:
        raise ValueError(error.message.rstrip(".")) from None


def _field(entry: AgentFile) -> str:
    return "spiffe_id" if entry.spiffe_id else "spiffe_id_pattern"


def _trust_domain(entry: AgentFile) -> str:
    text = entry.spiffe_id or entry.spiffe_id_pattern
    return text.removeprefix("spiffe://").partition("/")[0]
