"""Who a verified login is to the broker: a person of people.yaml, with the groups that count now.

people.yaml is the upper bound of what anybody may be: a provider can take groups away and never give one. Belongs
here: finding the person, and the groups. Does not belong here: verifying a login (``id_token.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from broker.errors import Denied, Reason
from broker.identity.agent import Person
from broker.identity.id_token import IdToken


def find_person(people: Mapping[str, Person], issuer: str, subject: str) -> tuple[str, Person]:
    """Key and entry of (``issuer``, ``subject``). Raises :class:`Denied` (PERSON_UNKNOWN)."""
    for key, person in people.items():
        if (person.issuer, person.subject) == (issuer, subject):
            return key, person
    raise Denied(
        Reason.PERSON_UNKNOWN,
        f"Nobody in people.yaml has the issuer {issuer!a} and the subject {subject!a}.",
        hint="Who keeps people.yaml says who may come in here; these two name the person.",
        metadata={"issuer": issuer, "subject": subject},
    )


def with_groups_of(person: Person, token: IdToken) -> Person:
    """``person`` with those of their groups that the login's provider confirms, where it is asked about groups."""
    return person if token.groups is None else replace(person, groups=person.groups & token.groups)


def check_enabled(key: str, person: Person, now: datetime) -> None:
    """Raises :class:`Denied` (OPERATOR_DISABLED)."""
    if person.enabled(now):
        return
    why = "is disabled in people.yaml" if person.disabled else f"was in people.yaml until {person.until}"
    raise Denied(
        Reason.OPERATOR_DISABLED,
        f"The person {key!a} {why}.",
        hint="Who keeps people.yaml says who may operate this broker.",
        metadata={"person": key},
    )
