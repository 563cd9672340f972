"""quotas.yaml: how much may be going on at once, and how often it may be asked.

An agent's own file bounds what each of its identities holds (``quotas:`` there). Belongs here: every other
bound, by agent, entry of the registry, owner, task, template or connector. A set may do without the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from broker.deployfiles.models import Slug, Words
from broker.deployfiles.read import Read
from broker.files import Duration, Model, Problem
from broker.identity.agent import Person, Registry, Tier
from broker.policy.quotas import OF_AGENTS, Per, Quota, Rate, person_key

# What the names in ``only`` are, by what the quota is counted by. A task has no name that an operator could know.
_NAMED = {
    Per.AGENT: "a file of agents/",
    Per.ENTRY: "a file of agents/",
    Per.OWNER: "in people.yaml",
    Per.TEMPLATE: "a template",
    Per.CONNECTOR: "in connectors.yaml",
}


class QuotaEntry(Model):
    """A bound on living leases, on requests in a time, or on both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["live_leases"]}, {"required": ["requests"]}]})

    per: Annotated[Per, Field(strict=False)] = Field(
        description="What is counted by: one SPIFFE ID (agent), an entry of the registry, its owner, ..."
    )
    only: Words = Field(
        default_factory=list,
        description="For these alone: files of agents/ (agent, entry), keys of people.yaml, templates, connectors.",
    )
    tiers: list[Annotated[Tier, Field(strict=False)]] = Field(
        default_factory=list, description="For agents of these tiers alone; with per: agent or per: entry."
    )
    live_leases: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="How many leases may be alive, those that are being revoked included."
    )
    requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="How many requests may be made at once; each is earned back in within / requests."
    )
    within: Duration | None = None

    @model_validator(mode="after")
    def _whole(self) -> QuotaEntry:
        if self.live_leases is None and self.requests is None:
            raise ValueError("bounds nothing: say live_leases, or requests and within, or both")
        if (self.requests is None) != (self.within is None):
            raise ValueError("says requests and within together, or neither")
        if self.tiers and self.per not in OF_AGENTS:
            raise ValueError(f"says tiers, and is counted per {self.per}, which has none")
        if self.only and self.per is Per.TASK:
            raise ValueError("says only, and tasks have no names that a file could list")
        return self


class QuotasFile(Model):
    """quotas.yaml."""

    quotas: dict[Slug, QuotaEntry] = Field(min_length=1, max_length=100)


def quotas_of(file: Read[QuotasFile], people: Mapping[str, Person]) -> tuple[Quota, ...]:
    """The quotas of a file in which :func:`unknown_subjects` finds nothing."""
    return tuple(_quota(name, entry, people) for name, entry in file.content.quotas.items())


def unknown_subjects(
    file: Read[QuotasFile],
    registry: Registry,
    people: Collection[str],
    templates: Collection[str],
    *,
    connectors: Collection[str],
) -> Iterator[Problem]:
    """What ``only`` names and is not there: such a quota would bound nobody, and look as if it did."""
    entries = {agent.principal for agent in registry} | {entry.principal for entry in registry.patterns}
    known: Mapping[Per, Collection[str]] = {
        Per.AGENT: entries,
        Per.ENTRY: entries,
        Per.OWNER: people,
        Per.TEMPLATE: templates,
        Per.CONNECTOR: connectors,
    }
    for name, entry in file.content.quotas.items():
        for index, each in enumerate(entry.only):
            if each not in known[entry.per]:
                yield file.problem(("quotas", name, "only", index), f"{each} is not {_NAMED[entry.per]}")


def _quota(name: str, entry: QuotaEntry, people: Mapping[str, Person]) -> Quota:
    rate = None if entry.requests is None or entry.within is None else Rate(entry.requests, entry.within)
    only = [person_key(people[key]) for key in entry.only] if entry.per is Per.OWNER else entry.only
    return Quota(name, entry.per, entry.live_leases, rate, frozenset(only), frozenset(entry.tiers))
