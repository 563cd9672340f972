"""denied.yaml: who may not call, whatever they can prove, and whose leases end.

Belongs here: the file's shape, and what it says as a :class:`~broker.identity.denied.DenyList`. Whether an
entry is about anybody who is registered is not asked: an id is often denied *and* taken out of the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from cryptography import x509
from pydantic import AfterValidator, Field, model_validator

from broker.deployfiles.instants import Instant
from broker.deployfiles.models import Sentence, Slug
from broker.deployfiles.read import Read
from broker.errors import Unauthenticated
from broker.files import Model, Problem
from broker.identity.agent import Person
from broker.identity.denied import Below, Certificate, Denial, DenyList
from broker.identity.spiffe_id import SpiffeId, is_trust_domain

_SERIAL = re.compile(r"(?:[0-9A-Fa-f]{1,40}|[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){0,19})\Z", re.ASCII)
_SCHEME = "spiffe://"


def parse_serial(value: str) -> int:
    """A certificate's serial number in hex, as ``openssl x509 -serial`` or ``-text`` shows it. Raises ValueError."""
    number = int(value.replace(":", ""), 16) if _SERIAL.match(value) else 0
    if number == 0:
        raise ValueError("must be a serial number in hex, in quotes: 1 to 40 digits, not zero")
    return number


def parse_below(value: str) -> Below:
    """A SPIFFE ID that stands for itself and all below it, or a whole trust domain. Raises :class:`ValueError`."""
    trust_domain = value.removeprefix(_SCHEME)
    if value.startswith(_SCHEME) and is_trust_domain(trust_domain):
        return Below(trust_domain, "")
    spiffe_id = _id(value)
    return Below(spiffe_id.trust_domain, spiffe_id.path)


def _id(value: str) -> SpiffeId:
    try:
        return SpiffeId.parse(value)
    except Unauthenticated as error:
        raise ValueError(error.message.rstrip(".")) from None


def _issuer(value: str) -> str:
    try:
        return x509.Name.from_rfc4514_string(value).rfc4514_string()
    except ValueError:
        raise ValueError('must be a name as RFC 4514 writes it, like "CN=our CA,O=Example"') from None


def _domain(value: str) -> str:
    if not is_trust_domain(value):
        raise ValueError("must be a trust domain: a-z 0-9 . _ -, without spiffe://")
    return value


def _checked(parse: object) -> AfterValidator:
    def check(value: str) -> str:
        parse(value)  # type: ignore[operator]
        return value

    return AfterValidator(check)


class DenialEntry(Model):
    """One of: an id, everything below a path, one certificate. Who is denied hears whom to ask, and no reason."""

    spiffe_id: Annotated[str, _checked(_id)] | None = Field(None, description="Exactly this workload.")
    below: Annotated[str, _checked(parse_below)] | None = Field(
        None, description="This SPIFFE ID and all below it, or a whole trust domain (spiffe://partner.org)."
    )
    trust_domain: Annotated[str, AfterValidator(_domain)] | None = Field(None, description="With serial.")
    serial: Annotated[str, _checked(parse_serial)] | None = Field(None, description="Of one SVID, in hex.")
    issuer: Annotated[str, AfterValidator(_issuer)] | None = Field(None, description="Of that SVID, if it matters.")
    reason: Sentence
    who: Slug = Field(description="Who decided, and is to be asked: a key of people.yaml.")
    since: Instant
    until: Instant | None = None

    @model_validator(mode="after")
    def _one_subject(self) -> DenialEntry:
        if sum(each is not None for each in (self.spiffe_id, self.below, self.serial)) != 1:
            raise ValueError("says one of spiffe_id, below, or serial (with trust_domain)")
        if (self.serial is None) != (self.trust_domain is None) or (self.issuer and self.serial is None):
            raise ValueError("says trust_domain with serial, and issuer only beside them")
        if self.until is not None and self.until <= self.since:
            raise ValueError("ends (until) before it begins (since)")
        return self

    @property
    def subject(self) -> SpiffeId | Below | Certificate:
        """Who is denied."""
        if self.spiffe_id is not None:
            return SpiffeId.parse(self.spiffe_id)
        if self.below is not None:
            return parse_below(self.below)
        return Certificate(self.trust_domain or "", parse_serial(self.serial or ""), self.issuer or "")


class DeniedFile(Model):
    """denied.yaml."""

    denied: list[DenialEntry] = Field(max_length=10_000)


def deny_list(
    file: Read[DeniedFile], people: Mapping[str, Person], problems: list[Problem], *, known: bool
) -> DenyList:
    """What the file says. ``known``: people.yaml could be read, so whoever is not in ``people`` does not exist."""
    problems.extend(_problems(file, people if known else None))
    return DenyList(
        Denial(entry.subject, entry.reason, people[entry.who], entry.since, entry.until)
        for entry in file.content.denied
        if entry.who in people
    )


def _problems(file: Read[DeniedFile], people: Mapping[str, Person] | None) -> Iterator[Problem]:
    first: dict[object, int] = {}
    for index, entry in enumerate(file.content.denied):
        if people is not None and entry.who not in people:
            yield file.problem(("denied", index, "who"), f"{entry.who} is not in people.yaml", "Name a person there.")
        other = first.setdefault(entry.subject, index)
        if other != index:
            # Whoever lifts one of them would believe that it is lifted.
            told = f"{entry.subject} is denied at {file.place(('denied', other))} too"
            yield file.problem(("denied", index), told, "Write one entry for it.")
