"""A rule of escalation detection: what it counts, from how many on within which time it fires, and the answer.

Rules are what operators write (``escalation.yaml``). Belongs here: which refusals one rule counts. What was
counted is in ``detect.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from broker.errors import BrokerError, Denied, InvalidInput, NotFound, Reason


class Counts(StrEnum):
    """What one rule counts, of one SPIFFE ID."""

    REFUSALS = "refusals"  # each refusal
    TEMPLATES = "templates"  # different templates for which it was refused
    RESOURCES = "resources"  # different resources (template, account, environment, resource)
    FOREIGN_IDS = "foreign_ids"  # calls that name what exists and is somebody else's: a task, a lease, ...


class Mode(StrEnum):
    """Whether a firing has consequences for the agent."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


class Answer(StrEnum):
    """What is done about one SPIFFE ID when a rule fires, beside recording it."""

    ALERT = "alert"
    COOL_DOWN = "cool_down"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True)
class Rule:
    """``threshold`` of what it counts, within ``within``. ``reasons``: for these alone; empty: see :meth:`takes`."""

    name: str
    counts: Counts
    threshold: int
    within: timedelta
    mode: Mode
    answer: Answer
    reasons: frozenset[Reason] = frozenset()
    cool_down: timedelta = timedelta(0)

    def takes(self, sighting: Sighting) -> bool:
        """Whether ``sighting`` is of the kind that this rule counts."""
        if (self.counts is Counts.FOREIGN_IDS) is not sighting.foreign:
            return False
        if sighting.foreign:
            return True
        if self.reasons:
            return sighting.reason in self.reasons
        probing = self.counts is not Counts.REFUSALS and sighting.reason is Reason.TEMPLATE_NOT_FOUND
        return probing or sighting.family is not NotFound


# Refusals that say something about the agent. Everything else (the broker not ready, an upstream that failed, a
# quota, a task that has ended meanwhile) befalls honest agents, most of all when they try again after an outage.
# What is not found counts only where a rule names its reason, or counts what is probed for.
FAMILIES = (Denied, InvalidInput, NotFound)


def family_of(failure: BrokerError) -> type[BrokerError] | None:
    """The countable family of a refusal; None where no rule may count it."""
    return next((family for family in FAMILIES if isinstance(failure, family)), None)


@dataclass(frozen=True, slots=True)
class Sighting:
    """One refusal of an agent that proved who it is, or (``foreign``) one use of an id that is somebody else's."""

    spiffe_id: str
    entry: str  # of the registry
    at: datetime
    reason: Reason
    family: type[BrokerError]
    method: str = ""
    request_id: str = ""
    template: str = ""
    resource: str = ""  # with its account and environment
    foreign: bool = field(default=False, kw_only=True)

    def key(self, counts: Counts) -> tuple[str, ...] | None:
        """What tells this sighting from another where different things are counted; None where each counts."""
        match counts:
            case Counts.TEMPLATES:
                return (self.template,)
            case Counts.RESOURCES:
                return (self.template, self.resource)
            case _:
                return None
