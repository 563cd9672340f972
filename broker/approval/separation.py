"""Who may not approve a request, because it is theirs: separation of duties (faults.md T20).

One function for every path, so that no door is laxer than another. People are compared as (issuer, subject).
Where all that is known is a text somebody claimed (a task's sponsor), everybody it could mean is barred: to bar
one too many costs another approver, to bar one too few is self-approval.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from broker.approval.quorum import PersonId
from broker.identity.agent import Person, Registry

OWNER = "owns the agent"
SPONSOR = "sponsors the task"
ON_BEHALF_OF = "is the human it acts for"
DELEGATOR = "owns an agent of the delegation chain"

_BETWEEN = re.compile(r"[\s,;<>()\[\]\"']+")
_BETWEEN_NAMES = re.compile(r"[,;<>()\[\]\"'\n]+")


@dataclass(frozen=True, slots=True)
class Interest:
    """One person with a part in a request, and which."""

    person: PersonId
    part: str


def person_id(person: Person) -> PersonId:
    """Who ``person`` is."""
    return (person.issuer, person.subject)


def interests(
    *,
    owners: Iterable[Person],
    sponsor: str,
    on_behalf_of: Iterable[PersonId],
    delegators: Iterable[Person],
    people: Mapping[str, Person],
) -> tuple[Interest, ...]:
    """Everybody who may not approve, with the part they have in it; in the order of the arguments, each once.

    ``sponsor`` is claimed text; ``people`` is people.yaml by its keys; ``delegators`` are the owners of the agents
    that handed the right on.
    """
    found: dict[PersonId, str] = {}
    for person in owners:
        found.setdefault(person_id(person), OWNER)
    for person in meant(sponsor, people):
        found.setdefault(person_id(person), SPONSOR)
    for whoever in on_behalf_of:
        found.setdefault(whoever, ON_BEHALF_OF)
    for person in delegators:
        found.setdefault(person_id(person), DELEGATOR)
    return tuple(Interest(person, part) for person, part in found.items())


def meant(claimed: str, people: Mapping[str, Person]) -> list[Person]:
    """Everybody whom a claimed text could mean: by key, e-mail, issuer#subject, subject or display name.

    Whole or as one word of it, without regard to case or to how the letters are encoded.
    """
    words = set(_words(claimed))
    return [person for key, person in people.items() if words & set(_names(key, person))]


def owners_of(principals: Iterable[str], registry: Registry) -> list[Person]:
    """The owners of these registry entries; an entry that is gone has nobody to bar any more."""
    entries = {entry.principal: entry.owner for entry in (*registry, *registry.patterns)}
    return [entries[principal] for principal in principals if principal in entries]


def _words(claimed: str) -> Iterator[str]:
    text = _plain(claimed)
    yield from filter(None, {text, *_BETWEEN.split(text), *(each.strip() for each in _BETWEEN_NAMES.split(text))})


def _names(key: str, person: Person) -> Iterator[str]:
    names = (key, person.email, f"{person.issuer}#{person.subject}", person.subject, person.display_name)
    yield from filter(None, (_plain(name) for name in names))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()
