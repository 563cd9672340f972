"""The ``break_glass`` section of templates: from the file to the rule, and whether anybody could ever use it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

from broker.breakglass.rules import BreakGlassRule
from broker.deployfiles.models import BreakGlassEntry, TemplateFile
from broker.deployfiles.read import Read
from broker.files import Problem
from broker.identity.agent import Person


def break_glass_rules(files: Iterable[Read[TemplateFile]]) -> dict[str, BreakGlassRule]:
    """The rules of those templates that have the section, by the template's name."""
    return {file.content.name: _rule(entry) for file in files if (entry := file.content.break_glass) is not None}


def unusable(files: Iterable[Read[TemplateFile]], people: Collection[Person]) -> Iterator[Problem]:
    """Groups in which nobody is, and uses that nobody else could review: found out now, not in the emergency."""
    enabled = Counter(group for person in people if not person.disabled for group in person.groups)
    others = sum(not person.disabled for person in people)
    for file in files:
        entry = file.content.break_glass
        if entry is None:
            continue
        known = ", ".join(sorted(enabled)) or "none"
        for index, group in enumerate(entry.groups):
            if not enabled[group]:
                at = ("break_glass", "groups", index)
                yield file.problem(at, f"nobody who is enabled is in {group}", f"Groups: {known}.")
        if others < 2:
            hint = "A review is by another person; without one the group's next break-glass is blocked."
            yield file.problem(("break_glass",), "people.yaml has nobody else who could review it", hint)


def _rule(entry: BreakGlassEntry) -> BreakGlassRule:
    strong = entry.strong
    return BreakGlassRule(
        groups=frozenset(entry.groups),
        max_ttl=entry.max_ttl,
        review_within=entry.review_within,
        max_uses=entry.rate.uses,
        per=entry.rate.per,
        acr=frozenset(strong.acr) if strong else frozenset(),
        amr=frozenset(strong.amr) if strong else frozenset(),
    )
