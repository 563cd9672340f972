"""Who is denied, though they can prove who they are.

SPIFFE has no revocation of a leaf: an SVID that leaked is good until it ends. Belongs here: what operators
can deny instead (one id, everything below a path, one certificate), and whether somebody is denied now.
A certificate is named by trust domain and serial number, never by fingerprint: anybody can turn an ECDSA
signature into another one that verifies too, and with it the fingerprint. Pure; where entries are read from is
``broker/deployfiles``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from broker.errors import Denied, Reason, Unauthenticated
from broker.identity.agent import Peer, Person
from broker.identity.spiffe_id import SpiffeId

_K = TypeVar("_K")


@dataclass(frozen=True, slots=True)
class Below:
    """Every workload at ``path`` (``/ci``) or below it; an empty path is the whole trust domain."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"everything below spiffe://{self.trust_domain}{self.path}"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One SVID. ``issuer`` (RFC 4514) narrows it where two authorities of one trust domain number alike."""

    trust_domain: str
    serial: int
    issuer: str = ""

    def __str__(self) -> str:
        issuer = f" of {self.issuer}" if self.issuer else ""
        return f"the certificate {self.serial:x}{issuer} in {self.trust_domain}"


@dataclass(frozen=True, slots=True)
class Denial:
    """One entry. ``until`` None: for good. ``who`` wrote it, and is whom to ask."""

    subject: SpiffeId | Below | Certificate
    reason: str
    who: Person
    since: datetime
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it is not over. ``since`` is for readers: an entry that is there counts, whatever the clock says."""
        return self.until is None or now < self.until

    def __str__(self) -> str:
        ends = "" if self.until is None else f" until {self.until.isoformat()}"
        return f"{self.subject}, since {self.since.isoformat()}{ends}, by {self.who.display_name}: {self.reason}"


class DenyList:
    """All entries of one deploy set. Immutable; asking costs a few look-ups, however many there are."""

    def __init__(self, denials: Iterable[Denial] = ()) -> None:
        self._denials = tuple(denials)
        self._ids: dict[SpiffeId, list[Denial]] = {}
        self._below: dict[tuple[str, str], list[Denial]] = {}
        self._certificates: dict[tuple[str, int], list[Denial]] = {}
        for denial in self._denials:
            match denial.subject:
                case SpiffeId() as spiffe_id:
                    self._ids.setdefault(spiffe_id, []).append(denial)
                case Below(trust_domain, path):
                    self._below.setdefault((trust_domain, path), []).append(denial)
                case Certificate(trust_domain, serial):
                    self._certificates.setdefault((trust_domain, serial), []).append(denial)

    def __len__(self) -> int:
        return len(self._denials)

    def __iter__(self) -> Iterator[Denial]:
        return iter(self._denials)

    def check(self, peer: Peer, now: datetime) -> None:
        """Refuse ``peer`` if it, or the proxy it came through, is denied at ``now``.

        Raises :class:`Denied` (AGENT_DENIED), which tells whom to ask, and nothing else: not why, not what else
        is denied.
        """
        if not self._denials:
            return
        if peer.proxy is None:
            self._refuse(peer.spiffe_id, self._of_peer(peer, now))
        else:
            # The serial number is of the proxy's certificate: a token has none.
            self._refuse(peer.spiffe_id, self._of_id(peer.spiffe_id, now))
            self._refuse(peer.proxy.spiffe_id, self._of_peer(peer.proxy, now))

    def denies_lease(self, holder: str, svid_serial: str, now: datetime) -> bool:
        """Whether a lease of ``holder``, asked for with this certificate (hex, or empty), must end at ``now``.

        A ledger knows no issuer, so an entry that names one ends the leases of its namesakes as well.
        """
        if not self._denials:
            return False
        try:
            spiffe_id = SpiffeId.parse(holder)
        except Unauthenticated:
            return False  # not an agent's; who is not registered is somebody else's question
        if self._of_id(spiffe_id, now):
            return True
        found = self._certificates.get((spiffe_id.trust_domain, int(svid_serial, 16)), ()) if svid_serial else ()
        return any(denial.holds(now) for denial in found)

    def _of_peer(self, peer: Peer, now: datetime) -> Denial | None:
        return self._of_id(peer.spiffe_id, now) or self._of_certificate(peer, now)

    def _of_certificate(self, peer: Peer, now: datetime) -> Denial | None:
        for denial in self._certificates.get((peer.spiffe_id.trust_domain, peer.serial), ()):
            subject = denial.subject
            if isinstance(subject, Certificate) and subject.issuer in ("", peer.issuer) and denial.holds(now):
                return denial
        return None

    def _of_id(self, spiffe_id: SpiffeId, now: datetime) -> Denial | None:
        found = _first(self._ids, spiffe_id, now)
        path = spiffe_id.path
        while found is None and self._below:
            found = _first(self._below, (spiffe_id.trust_domain, path), now)
            if not path:
                break
            path = path.rpartition("/")[0]  # whole segments: /ci is not below /c
        return found

    @staticmethod
    def _refuse(spiffe_id: SpiffeId, denial: Denial | None) -> None:
        if denial is not None:
            raise Denied(
                Reason.AGENT_DENIED,
                f"{spiffe_id} is denied by the operators of this broker.",
                hint=f"Ask {denial.who.display_name}.",
                metadata={"spiffeId": str(spiffe_id), "ask": denial.who.display_name},
            )


def _first(denials: Mapping[_K, list[Denial]], key: _K, now: datetime) -> Denial | None:
    return next((denial for denial in denials.get(key, ()) if denial.holds(now)), None)
