"""The JWT bundles in force: from files or the Workload API, taken in again when they change, the last good kept.

Belongs here: the two origins, one per trust domain, and the rule by which bundles that are good alone become
a set. What a bundle must be like is ``broker/identity/jwt_bundle.py``; how the last good is kept, ``tls_material.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.api.tls_files import read_guarded
from broker.api.tls_material import LastGood, Origin
from broker.errors import BrokerError, InvalidInput, Reason
from broker.identity.jwt_bundle import JwtBundle, JwtBundles
from broker.workloadapi.follow import Follower


@dataclass(frozen=True, slots=True)
class JwtBundleFile:
    """The JWT authorities of one trust domain, as a SPIFFE bundle in JSON."""

    trust_domain: str
    path: Path

    def signature(self) -> object:
        """What ``stat`` says of it."""
        try:
            found = self.path.stat()
        except OSError:
            return None  # loading it tells what is wrong
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)

    def load(self) -> JwtBundle:
        """The bundle. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        return JwtBundle.from_jwks(self.trust_domain, read_guarded(self.path, private=False))


@dataclass(frozen=True, slots=True)
class PushedJwtBundle:
    """The JWT authorities of one trust domain; None where the Workload API sent none for a ``foreign`` one.

    As with roots: what is not sent any more was taken away, what is sent and no bundle takes nothing's place.
    """

    follower: Follower[Mapping[str, bytes]]
    endpoint: str
    trust_domain: str
    foreign: bool

    def signature(self) -> object:
        """The document as it was sent last."""
        return self.follower.latest.get(self.trust_domain)

    def load(self) -> JwtBundle | None:
        """The bundle. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        document = self.follower.latest.get(self.trust_domain)
        if document is None and self.foreign:
            return None
        try:
            return JwtBundle.from_jwks(self.trust_domain, document or b"", workload_api=True)
        except InvalidInput as error:
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"From {self.endpoint}: {error.message}",
                hint="Look at what the SPIFFE agent serves this workload; federation is set in its entry.",
                metadata={**error.metadata, "workloadApi": self.endpoint},
            ) from None


class JwtTrust:
    """The bundles to validate tokens against; ``own`` is the broker's trust domain.

    Those in ``may_be_absent`` may have no bundle at the start, or lose it: then nobody of theirs gets in.

    Construction raises :class:`InvalidInput` (CONFIG_INVALID). Afterwards nothing raises: each bundle is kept
    until its origin is good again, and ``problems`` tells of it. Belongs to one thread.
    """

    def __init__(
        self,
        own: str,
        origins: Mapping[str, Origin[JwtBundle | None]],
        may_be_absent: Collection[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own = own
        self._kept: dict[str, LastGood[JwtBundle | None]] = {
            name: LastGood(origin, monotonic, _nobody if name in may_be_absent else None)
            for name, origin in origins.items()
        }
        self._in_force, self._yielded = self._composed({})

    @property
    def bundles(self) -> JwtBundles:
        """Those in force."""
        return self._in_force

    @property
    def problems(self) -> tuple[BrokerError, ...]:
        """What is wrong while the last good stays in force; empty when all is well."""
        return (*(each.error for each in self._kept.values() if each.error), *self._yielded)

    def refresh(self) -> None:
        """Take in what changed. Never raises; called each second."""
        changed = [each.refresh() for each in self._kept.values()]
        if any(changed):
            self._in_force, self._yielded = self._composed(self._in_force)

    def _composed(self, before: Mapping[str, JwtBundle]) -> tuple[JwtBundles, Sequence[BrokerError]]:
        """As ``tls_material.compose``: of two bundles with one key, the own one stays, and then the unchanged one.

        What must yield keeps what it had, unless that collides too; then nobody of it gets in.
        """
        refused: list[BrokerError] = []
        offered = {name: each.value for name, each in self._kept.items() if each.value is not None}
        chosen: list[JwtBundle] = []
        for name in sorted(offered, key=lambda each: (each != self._own, before.get(each) is not offered[each])):
            for option in (offered[name], before.get(name)):
                rival = None if option is None else next((one for one in chosen if one.shares_key_with(option)), None)
                if option is not None and rival is None:
                    chosen.append(option)
                    break
                if rival is not None and option is offered[name]:
                    refused.append(_clash(name, rival.trust_domain))
        return JwtBundles(chosen), refused


def _nobody() -> None:
    """No bundle: nobody of that trust domain gets in."""


def _clash(name: str, rival: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"The JWT bundle of {name} shares a key with the bundle of {rival}.",
        hint="Each trust domain has keys of its own; ask who put this one into both.",
        metadata={"trustDomain": name, "other": rival},
    )
