"""Suspensions, as they are said and lifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.ports.proofs import ProofRecord
from broker.suspension.suspension import Kind

# Of a holder, its registry entry and who answers for it (issuer, subject); empty where it has none. Quick: no I/O.
Members = Callable[[str], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class NewSuspension:
    """What is to be stopped, by whom. Same (author, request_id): the same suspension; other content: Conflict."""

    tenant: str
    id: str
    request_id: str
    request_digest: str
    kind: Kind
    value: str
    reason: str
    author: str  # (issuer, subject)
    author_name: str  # for those who are refused: whom to ask
    now: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class StillAlive:
    """Of one connector: how many attempts that a suspension covers are not proven dead, and when the last one ends."""

    connector: str
    attempts: int
    last_end: datetime


@dataclass(frozen=True, slots=True)
class Lifting:
    """One person's word that a suspension shall end. Same (by, request_id): said once."""

    tenant: str
    id: str
    request_id: str
    by: str  # (issuer, subject)
    name: str
    reason: str
    now: datetime
    proof: ProofRecord | None = None
