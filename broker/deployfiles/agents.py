"""From agents/*.yaml to the entries of the registry: what each says, and that no two claim one identity.

An exact id inside a pattern is taken out of it only by a file that says so (``overrides``). Without
that, one of the two is a mistake, and a costly one: while both files are there the exact one decides
what the agent may do, and once it is removed, to stop that agent, the pattern lets it in again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from broker.deployfiles.models import AgentFile
from broker.deployfiles.read import Read
from broker.files import Problem
from broker.identity.agent import Agent, AgentPattern, Person, Quotas
from broker.identity.own import is_own
from broker.identity.pattern import IdPattern, names_of
from broker.identity.pattern_index import PatternIndex, example
from broker.identity.spiffe_id import SpiffeId

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)
# Overlaps told at once: of n patterns that are all alike there are n * n.
_PAIRS = 100
_EXACT, _PATTERN, _SEGMENTS, _OVERRIDES = "spiffe_id", "spiffe_id_pattern", "segments", "overrides"


@dataclass(frozen=True, slots=True)
class Entries:
    """What the files came to: of those with a problem, nothing."""

    agents: Sequence[Agent]
    patterns: Sequence[AgentPattern]
    sound: Sequence[Read[AgentFile]]  # the files in which nothing is wrong by themselves


@dataclass(frozen=True, slots=True)
class _Exact:
    file: Read[AgentFile]
    spiffe_id: SpiffeId


@dataclass(frozen=True, slots=True)
class _Patterned:
    file: Read[AgentFile]
    pattern: IdPattern


def entries(
    files: Iterable[Read[AgentFile]], owner_of: Callable[[Read[AgentFile]], Person | None], problems: list[Problem]
) -> Entries:
    """The entries whose owner is there and enabled. What is wrong with them, or between them, goes to ``problems``."""
    read = list(files)
    owners = {file.document.file: owner_of(file) for file in read}
    sound: list[Read[AgentFile]] = []
    for file in read:
        wrong = list(_alone(file))
        problems.extend(wrong)
        if not wrong:
            sound.append(file)
    exact = [_Exact(file, SpiffeId.parse(file.content.spiffe_id)) for file in sound if file.content.spiffe_id]
    patterned = [_Patterned(file, _pattern(file.content)) for file in sound if file.content.spiffe_id_pattern]
    index = PatternIndex([each.pattern for each in patterned])
    problems.extend(_twice(exact))
    problems.extend(_overlapping(patterned, index))
    problems.extend(_shadowed(exact, patterned, index))
    return Entries(
        [_agent(each, owner) for each in exact if (owner := owners[each.file.document.file])],
        [_agents(each, owner) for each in patterned if (owner := owners[each.file.document.file])],
        sound,
    )


def _alone(file: Read[AgentFile]) -> Iterator[Problem]:
    """What is wrong with an entry whatever the others say."""
    entry = file.content
    if not _NAME.match(file.stem):
        hint = "Name the file in a-z 0-9 and -, at most 63 characters: policies and the audit trail call the agent so."
        yield file.problem((), f"{ascii(file.stem)[:80]} names no agent", hint)
    if entry.spiffe_id and is_own(SpiffeId.parse(entry.spiffe_id)):
        yield file.problem((_EXACT,), f"{entry.spiffe_id} is the broker's own id", "Give the workload another one.")
    if not entry.spiffe_id and not entry.spiffe_id_pattern:
        yield file.problem((_EXACT,), "is missing", "Write spiffe_id for one workload, spiffe_id_pattern for many.")
    if entry.spiffe_id and entry.spiffe_id_pattern:
        yield file.problem((_PATTERN,), "stands beside spiffe_id", "An entry has one or the other.")
    if entry.segments and not entry.spiffe_id_pattern:
        yield file.problem((_SEGMENTS,), "restricts the names of a pattern, and there is no spiffe_id_pattern")
    if entry.overrides and not entry.spiffe_id:
        yield file.problem((_OVERRIDES,), "takes one id out of a pattern, and there is no spiffe_id")
    if entry.spiffe_id_pattern:
        named = names_of(entry.spiffe_id_pattern)
        for name in entry.segments.keys() - named:
            hint = f"It names: {', '.join(sorted(named))}."
            yield file.problem((_SEGMENTS, name), "is not a segment that spiffe_id_pattern names", hint)


def _pattern(entry: AgentFile) -> IdPattern:
    return IdPattern.parse(entry.spiffe_id_pattern, {name: each.build() for name, each in entry.segments.items()})


def _twice(exact: Sequence[_Exact]) -> Iterator[Problem]:
    first: dict[SpiffeId, _Exact] = {}
    for each in exact:
        taken = first.setdefault(each.spiffe_id, each)
        if taken is not each:
            yield each.file.problem((_EXACT,), f"{each.spiffe_id} is registered in {taken.file.document.file} too")


def _overlapping(patterned: Sequence[_Patterned], index: PatternIndex) -> Iterator[Problem]:
    """Told on both sides: either file may be the wrong one."""
    for numbers in islice(index.overlaps(), _PAIRS):
        one, other = (patterned[number] for number in numbers)
        shown = example(one.pattern, other.pattern)
        told = f"{shown} would match" if shown else "an id could match"
        hint = "Restrict a segment to listed values (segments: NAME: enum), or write a literal segment." + (
            "" if shown else " Two regular expressions are not compared with each other."
        )
        for here, there in ((one, other), (other, one)):
            place = there.file.place((_PATTERN,))
            yield here.file.problem((_PATTERN,), f"{told} {there.pattern} at {place} too", hint)


def _shadowed(exact: Sequence[_Exact], patterned: Sequence[_Patterned], index: PatternIndex) -> Iterator[Problem]:
    for each in exact:
        found = index.find(each.spiffe_id)
        around = None if found is None else patterned[found[0]]
        said = each.file.content.overrides
        if around is not None and said != around.file.stem:
            place = around.file.place((_PATTERN,))
            told = f"{each.spiffe_id} is inside the pattern {around.pattern} at {place}"
            yield each.file.problem(
                (_OVERRIDES,) if said else (_EXACT,),
                told,
                f"If this file shall decide and not that one, say overrides: {around.file.stem}.",
            )
        elif said and not any(other.pattern.match(each.spiffe_id) for other in patterned):
            hint = "Name the file of a pattern that matches this id, without .yaml, or leave it out."
            yield each.file.problem((_OVERRIDES,), f"no pattern of {said} matches {each.spiffe_id}", hint)


def _quotas(entry: AgentFile) -> Quotas:
    quotas = entry.quotas
    return Quotas(quotas.live_leases, quotas.open_tasks, quotas.pending_requests)


def _agent(each: _Exact, owner: Person) -> Agent:
    entry = each.file.content
    return Agent(
        spiffe_id=each.spiffe_id,
        owner=owner,
        tier=entry.tier,
        roles=frozenset(entry.roles),
        environments=frozenset(entry.environments),
        quotas=_quotas(entry),
        description=entry.description,
        promoted=entry.promoted,
        principal=each.file.stem,
        tools=frozenset(entry.tools or ()),
    )


def _agents(each: _Patterned, owner: Person) -> AgentPattern:
    entry = each.file.content
    return AgentPattern(
        principal=each.file.stem,
        pattern=each.pattern,
        owner=owner,
        tier=entry.tier,
        roles=frozenset(entry.roles),
        environments=frozenset(entry.environments),
        quotas=_quotas(entry),
        description=entry.description,
        promoted=entry.promoted,
        tools=frozenset(entry.tools or ()),
    )
