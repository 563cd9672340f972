"""Who holds a lease: an agent, by its SPIFFE ID, or a person, by issuer#subject. The text itself says which."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from broker.ports.deploys import DeploySet

_AGENT = "spiffe://"


def is_person(holder: str) -> bool:
    """Whether ``holder`` is a person's (issuer, subject): an issuer is an https URL."""
    return not holder.startswith(_AGENT)


def enabled_people(deploy: DeploySet, now: datetime) -> Callable[[str], bool]:
    """Whether a person, by issuer#subject, is in people.yaml and enabled."""
    return frozenset(person.id for person in deploy.people.values() if person.enabled(now)).__contains__


def may_hold(deploy: DeploySet, now: datetime) -> Callable[[str], bool]:
    """Whether a holder may still hold what it has: registered, or a person who is enabled."""
    enabled = enabled_people(deploy, now)
    return lambda holder: enabled(holder) if is_person(holder) else deploy.registry.registers(holder)
