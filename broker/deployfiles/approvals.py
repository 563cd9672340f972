"""approvals.yaml: whose yes each approval takes that a gate may name.

Belongs here: the file's shape, and that every quorum can be reached with the people there are. Whether a gate
names an approval that is not here is looked at with the other names in policies (``mentions.py``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from broker.approval.rules import ApprovalRule, Quorum
from broker.deployfiles.models import Sentence, Slug, Word
from broker.deployfiles.read import Read
from broker.files import Duration, Model, Problem
from broker.identity.agent import Person

_SHORTEST, _LONGEST = timedelta(minutes=1), timedelta(hours=24)


def _deadline(value: timedelta) -> timedelta:
    if not _SHORTEST <= value <= _LONGEST:
        raise ValueError("must be between 1m and 24h")
    return value


Deadline = Annotated[Duration, AfterValidator(_deadline)]


class QuorumEntry(Model):
    """So many different people of one group."""

    group: Word = Field(description="A group of people.yaml.")
    people: Annotated[int, Field(ge=1, le=20)] = 1


def _each_group_once(entries: list[QuorumEntry]) -> list[QuorumEntry]:
    counted = Counter(entry.group for entry in entries)
    if twice := sorted(group for group, count in counted.items() if count > 1):
        raise ValueError(f"lists {', '.join(twice)} twice: the smaller quorum would always do")
    return entries


class ApprovalEntry(Model):
    """One approval: what it is about, and whose yes gives it."""

    description: Sentence = Field(description="What is decided; approvers read it.")
    any_of: Annotated[list[QuorumEntry], Field(min_length=1, max_length=16), AfterValidator(_each_group_once)] = Field(
        description="Any one of these quorums is enough."
    )
    expires_in: Deadline = Field(
        timedelta(minutes=15), description="How long it can be given, from asking on; 1m to 24h. Default: 15m."
    )
    redeem_within: Deadline = Field(
        timedelta(minutes=10), description="How long it is good, once given; 1m to 24h. Default: 10m."
    )


class ApprovalsFile(Model):
    """approvals.yaml."""

    approvals: dict[Slug, ApprovalEntry] = Field(min_length=1, description="By the name that gates use.")


def approval_rules(file: Read[ApprovalsFile]) -> dict[str, ApprovalRule]:
    """The rules of a file, by name."""
    return {
        name: ApprovalRule(
            name=name,
            description=entry.description,
            any_of=tuple(Quorum(each.group, each.people) for each in entry.any_of),
            expires_in=entry.expires_in,
            redeem_within=entry.redeem_within,
        )
        for name, entry in file.content.approvals.items()
    }


def unreachable(file: Read[ApprovalsFile], people: Collection[Person]) -> Iterator[Problem]:
    """Quorums that no group can ever reach: what they guard could never be had."""
    enabled = Counter(group for person in people if not person.disabled for group in person.groups)
    for name, entry in file.content.approvals.items():
        for index, quorum in enumerate(entry.any_of):
            at = ("approvals", name, "any_of", index)
            if not (there := enabled[quorum.group]):
                known = ", ".join(sorted(enabled)) or "none"
                yield file.problem((*at, "group"), f"nobody who is enabled is in {quorum.group}", f"Groups: {known}.")
            elif there < quorum.people:
                told = f"takes {quorum.people} people of {quorum.group}, which has {there} enabled"
                yield file.problem((*at, "people"), told, "Ask for fewer, or add people to the group in people.yaml.")
