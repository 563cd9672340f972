"""A human whom an agent acts for, and what that person may have done for them.

Belongs here: who it is, and the bounds that operators set in people.yaml (``may``). Somebody without bounds may have
nothing done: an agent gets only what it may have *and* what the person may. Does not belong here: how the person proved
it (``id_token.py``), and what policy makes of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from broker.errors import Denied, Reason
from broker.identity.agent import Person

# How long ago the person may have logged in, and the token been made.
MAX_AGE = timedelta(minutes=15)


class Human(NamedTuple):
    """Who it was when the task began. Compared by issuer and subject; the name is for display."""

    issuer: str
    subject: str
    display_name: str

    @property
    def id(self) -> str:
        """As :attr:`Person.id`."""
        return f"{self.issuer}#{self.subject}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done for somebody."""

    template: str
    environment: str
    access: str


def person_behind(issuer: str, subject: str, people: Mapping[str, Person], now: datetime) -> Person:
    """The person of people.yaml. Raises :class:`Denied` (ON_BEHALF_OF_NOBODY) for who is not there, or not enabled."""
    for person in people.values():
        if (person.issuer, person.subject) == (issuer, subject) and person.enabled(now):
            return person
    who = ascii(f"{issuer}#{subject}")[1:-1][:200]
    raise Denied(
        Reason.ON_BEHALF_OF_NOBODY,
        f"{who} is nobody whom an agent may act for: not in people.yaml, or disabled there.",
        hint="Who keeps people.yaml says who has things done by agents.",
        metadata={"person": who},
    )


def is_enabled(human: Human, people: Mapping[str, Person], now: datetime) -> bool:
    """Whether an agent may (still) act for this person."""
    return any((each.issuer, each.subject) == human[:2] and each.enabled(now) for each in people.values())


def check_within(person: Person | None, wanted: Wanted) -> None:
    """Raises :class:`Denied` (ON_BEHALF_OF_EXCEEDED) where ``person`` may not have that done; None is nobody."""
    if person is None:
        return
    may = person.may
    if may is None:
        raise _exceeded(person, wanted, "they may have nothing done by an agent", ())
    for word, value, allowed in (
        ("access", wanted.access, may.access),
        ("environment", wanted.environment, may.environments),
        ("template", wanted.template, may.templates),
    ):
        if value not in (allowed or {value}):
            raise _exceeded(person, wanted, f"they may not have the {word} {value} used for them", allowed)


def _exceeded(person: Person, wanted: Wanted, why: str, allowed: Iterable[str]) -> Denied:
    return Denied(
        Reason.ON_BEHALF_OF_EXCEEDED,
        f"the task acts for {person.display_name}, and {why}.",
        hint="An agent gets what it may have and the person, too: people.yaml (may) says what that is.",
        metadata={
            "person": person.id,
            "template": wanted.template,
            "environment": wanted.environment,
            "access": wanted.access,
            "allowed": ",".join(sorted(allowed)),
        },
    )
