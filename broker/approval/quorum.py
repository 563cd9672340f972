"""Do these votes carry this request? Pure: rules, votes and who is barred in, what is missing out.

Counted anew from the votes each time it matters (at each vote, and again when the request is redeemed), with the
groups that people have *then*: who left a group, is disabled, or is barred has no vote any more.

A person has one vote per request, whatever groups they are in, and it counts for the one rule it was given for:
two approvals are two people. Within a rule, a person of two groups counts in either quorum, never twice in one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.approval.rules import ApprovalRule, Quorum

# (issuer, subject): who a person is. Nothing else names one: e-mail addresses and display names are reused.
PersonId = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Ballot:
    """One person's vote, with the groups that person has now: none for one who is disabled or gone."""

    person: PersonId
    groups: frozenset[str]
    rule: str  # the approval it counts for
    yes: bool = True


@dataclass(frozen=True, slots=True)
class Missing:
    """An approval that is not given yet: any one of ``any_of``, each with the people it still lacks."""

    rule: str
    any_of: tuple[Quorum, ...]

    def __str__(self) -> str:
        return f"{self.rule}: " + " or ".join(f"{each.people} of {each.group}" for each in self.any_of)


@dataclass(frozen=True, slots=True)
class Tally:
    """What the votes come to."""

    denied: bool
    held: frozenset[str]  # the approvals that are given
    missing: tuple[Missing, ...]  # the others, in the order asked

    @property
    def satisfied(self) -> bool:
        """Whether nothing is missing and nobody said no."""
        return not self.denied and not self.missing


def tally(rules: Sequence[ApprovalRule], ballots: Iterable[Ballot], barred: Collection[PersonId]) -> Tally:
    """Count. A no denies whoever gave it: taking away needs no quorum.

    Of several votes of one person the first counts, so that a list with repeats is no more than one without.
    No rules at all is nothing to be satisfied by: ``missing`` is then empty and so is ``held``.
    """
    first: dict[PersonId, Ballot] = {}
    denied = False
    for ballot in ballots:
        denied = denied or not ballot.yes
        first.setdefault(ballot.person, ballot)
    counted = [ballot for ballot in first.values() if ballot.yes and ballot.person not in barred]
    lacking = {rule.name: _missing(rule, counted) for rule in rules}
    missing = tuple(each for each in lacking.values() if each is not None)
    return Tally(denied, frozenset(name for name, each in lacking.items() if each is None), missing)


def _missing(rule: ApprovalRule, ballots: Iterable[Ballot]) -> Missing | None:
    groups = [ballot.groups for ballot in ballots if ballot.rule == rule.name]
    lacking = tuple(
        Quorum(quorum.group, quorum.people - have) if have < quorum.people else None
        for quorum in rule.any_of
        for have in [sum(quorum.group in each for each in groups)]
    )
    if any(each is None for each in lacking):
        return None
    return Missing(rule.name, tuple(each for each in lacking if each is not None))


def may_vote(rule: ApprovalRule, groups: frozenset[str]) -> bool:
    """Whether somebody with these groups has a say in ``rule``."""
    return any(quorum.group in groups for quorum in rule.any_of)


def rule_for(groups: frozenset[str], counted: Tally, rules: Mapping[str, ApprovalRule]) -> str | None:
    """The approval that a yes by these groups counts for, where none was named: the first that lacks it, or None."""
    for missing in counted.missing:
        if any(quorum.group in groups for quorum in missing.any_of) and missing.rule in rules:
            return missing.rule
    return None
