"""Who brokerd is and whom it trusts, kept current, with the alarms about both.

Belongs here: making the door's TLS material from the configuration, following it, closing the gate when the
own SVID has ended, and telling operators, once for each thing, before that happens.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from broker.api.tls import ServerTls, TlsMaterial
from broker.api.tls_files import BundleFile, IdentityFiles
from broker.api.tls_material import Origin, ServerIdentity
from broker.api.tls_workload_api import PushedBundle, PushedIdentity
from broker.config import Config
from broker.errors import BrokerError, NotReady, Reason
from broker.identity.bundle import TrustBundle
from broker.issuance.gate import Gate
from broker.ports.clock import Clock, earliest
from broker.workloadapi.follow import Follower

if TYPE_CHECKING:
    from broker.workloadapi.source import Update

log = structlog.get_logger("broker.identity")

_ENDED = "brokerd's own SVID has ended: nobody connects any more, nothing is granted, revocation goes on"


class OwnIdentity:
    """brokerd's SVID and bundles. Construction blocks while the Workload API is asked, for a bounded time.

    Raises :class:`BrokerError` where there is nothing to serve with. Afterwards the last good stays.
    """

    def __init__(self, config: Config, gate: Gate, clock: Clock) -> None:
        self._gate = gate
        self._clock = clock
        self._ended = False
        self._alarms: dict[tuple[str, ...], BrokerError] = {}
        endpoint = config.identity.workload_api
        if endpoint is None:
            self._follower = None
        else:
            # With py-spiffe, which a broker whose SVID is in files does not need.
            from broker.workloadapi.source import WorkloadApi

            self._follower = Follower(WorkloadApi(endpoint, spiffe_id=config.identity.spiffe_id or ""))
        try:
            self.tls = ServerTls(_material(config, self._follower, clock), clock)
        except BaseException:
            self.close()
            raise
        if self._follower is not None:
            self._follower.start(self.tls.refresh)
        self.look()

    def look(self) -> None:
        """Once a second: take in what changed, and raise or end alarms. Never raises an error."""
        self.tls.refresh()
        self._gate.own_svid_ends = self.tls.identity.not_after
        now = earliest(self._clock)
        self._tell_end(now)
        alarms = {_name(alarm): alarm for alarm in self.alarms(now)}
        for name, alarm in alarms.items():
            if name not in self._alarms:
                log.warning(alarm.message, hint=alarm.hint, reason=alarm.reason)
        for name in self._alarms.keys() - alarms.keys():
            log.info("an alarm about brokerd's identity has ended", about=" ".join(name))
        self._alarms = alarms

    def _tell_end(self, now: datetime) -> None:
        """In the log, when it has ended, and when another one is in force: between the two nobody gets in."""
        identity = self.tls.identity
        if identity.ended(now) is self._ended:
            return
        self._ended = not self._ended
        if self._ended:
            hint = "Look at the SPIFFE agent, or at what writes the files. Do not restart brokerd: it would not start."
            log.error(_ENDED, ended=identity.not_after.isoformat(), reason=Reason.OWN_SVID_EXPIRED, hint=hint)
        else:
            log.warning("brokerd has a valid SVID again: agents and people connect, grants resume")

    def alarms(self, now: datetime) -> list[BrokerError]:
        """What is not as it should be; grants go on until the SVID in force has ended."""
        failed = self._follower.error if self._follower is not None else None
        found = [*self.tls.problems, *([failed] if failed else [])]
        identity = self.tls.identity
        if identity.overdue(now):
            found.append(
                NotReady(
                    Reason.OWN_SVID_OVERDUE,
                    f"brokerd's own SVID should have been renewed by now; it ends at {identity.not_after.isoformat()}.",
                    hint="Look at the SPIFFE agent. When it ends, brokerd gives out nothing any more.",
                    metadata={"spiffeId": str(identity.spiffe_id), "fingerprint": identity.fingerprint},
                )
            )
        return found

    def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.close()


def _material(config: Config, follower: Follower[Update] | None, clock: Clock) -> TlsMaterial:
    own, endpoint = config.trust_domain, config.identity.workload_api or ""
    files = config.identity.bundles
    bundles: dict[str, Origin[TrustBundle | None]] = {}
    pushed = set()
    for name in (own, *config.identity.federates_with):
        if name in files or follower is None:
            bundles[name] = BundleFile(name, files[name])
        else:
            bundles[name] = PushedBundle(follower, endpoint, name, foreign=name != own)
            pushed.add(name)
    return TlsMaterial(own, _identity(config, follower, clock), bundles, frozenset(pushed - {own}))


def _identity(config: Config, follower: Follower[Update] | None, clock: Clock) -> Origin[ServerIdentity]:
    if follower is not None:
        return PushedIdentity(follower, config.identity.workload_api or "", config.trust_domain, clock)
    pair = config.identity.files
    assert pair is not None  # noqa: S101 - load_config refuses a configuration that has neither
    return IdentityFiles(*pair, config.trust_domain, clock)


def _name(alarm: BrokerError) -> tuple[str, ...]:
    """What an alarm is about, whatever the time is that its text tells."""
    keys = ("file", "trustDomain", "workloadApi", "fingerprint")
    return (alarm.reason, *(alarm.metadata[key] for key in keys if key in alarm.metadata))
