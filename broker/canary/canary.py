"""A canary: what is issued to measure a connector's contract, what can be measured of it, and when it is due.

Belongs here: what operators configure, the kinds of measurement, the schedule. Does not belong here: issuing and using
(``broker/issuance/canaries.py``), what the looks at a credential come to (``watch.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from broker.lease.credential import Contract


class Kind(StrEnum):
    """What is measured: the time from this to the first refusal of the credential."""

    ON_REVOKE = "ON_REVOKE"  # from the moment its revocation was asked for
    ON_EXPIRY = "ON_EXPIRY"  # from its deadline, with nobody revoking it before; less than zero: it died early


@dataclass(frozen=True, slots=True)
class Canary:
    """What operators say about one connector's canary. It is in a connector's entry of connectors.yaml."""

    connector: str
    template: str
    account: str
    environment: str
    resource: str
    ttl: timedelta
    every: timedelta
    parameters: Mapping[str, str] = field(default_factory=dict)


def kinds(contract: Contract) -> tuple[Kind, ...]:
    """What can be measured of a connector: where only time ends a credential, its expiry alone."""
    return (Kind.ON_EXPIRY,) if contract.on_revoke is None else (Kind.ON_REVOKE, Kind.ON_EXPIRY)


def bound(contract: Contract, kind: Kind) -> timedelta | None:
    """What the contract promises; None: nothing, it cannot be measured."""
    return contract.on_revoke if kind is Kind.ON_REVOKE else contract.on_expiry


def due(possible: Iterable[Kind], last: Mapping[Kind, datetime], every: timedelta, now: datetime) -> tuple[Kind, ...]:
    """The kinds whose time has come.

    ``last``: when each was begun last. What was begun in the future, by a clock that has been put back since, is due.
    """
    return tuple(kind for kind in possible if not timedelta(0) <= now - last.get(kind, now - every) < every)
