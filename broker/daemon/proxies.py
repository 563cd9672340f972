"""The proxies' listener, where an operator switched it on.

Belongs here: from the configuration to the way of identifying there, following its JWT bundles, and telling
operators about them. The listener serves the same door as the agents' one (``doors.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from broker.api.bearer import Metadata
from broker.api.proxied import ProxiedIdentity
from broker.api.proxied_bundles import JwtBundleFile, JwtTrust, PushedJwtBundle
from broker.api.tls_material import Origin
from broker.config import Config, Proxies
from broker.errors import BrokerError
from broker.identity.agent import Peer
from broker.identity.jwt_bundle import JwtBundle
from broker.identity.spiffe_id import SpiffeId
from broker.ports.clock import Clock
from broker.workloadapi.follow import Follower

log = structlog.get_logger("broker.identity")


class ProxiesEntrance:
    """Who comes through proxies. Construction blocks while the Workload API is asked, for a bounded time.

    Raises :class:`BrokerError` where there is no bundle to begin with. Afterwards the last good stays.
    """

    def __init__(
        self, config: Config, proxies: Proxies, certified: Callable[[Mapping[str, Any]], Peer], clock: Clock
    ) -> None:
        endpoint = config.identity.workload_api
        self._follower = None if endpoint is None else _following(endpoint)
        try:
            origins = _origins(config, proxies, self._follower)
            foreign = origins.keys() - {config.trust_domain} - proxies.jwt_bundles.keys()
            self._trust = JwtTrust(config.trust_domain, origins, foreign)
        except BaseException:
            self.close()
            raise
        if self._follower is not None:
            self._follower.start(lambda: None)  # what is new is taken in by look(), on the loop's thread
        allowed = [SpiffeId.parse(each) for each in proxies.allow]
        self._identity = ProxiedIdentity(certified, lambda: self._trust.bundles, allowed, proxies.audience, clock)
        self._told: frozenset[str] = frozenset()

    def identify(self, auth_context: Mapping[str, Any], metadata: Metadata) -> Peer:
        """As :meth:`ProxiedIdentity.identify`."""
        return self._identity.identify(auth_context, metadata)

    def look(self) -> None:
        """Once a second: take in bundles that changed, and tell of those that could not be. Never raises an error."""
        self._trust.refresh()
        alarms = {alarm.message: alarm for alarm in self.alarms()}
        for message in alarms.keys() - self._told:
            log.warning(message, hint=alarms[message].hint, reason=alarms[message].reason)
        self._told = frozenset(alarms)

    def alarms(self) -> tuple[BrokerError, ...]:
        """What is wrong with the bundles while the last good ones stay in force."""
        failed = self._follower.error if self._follower is not None else None
        return (*self._trust.problems, *([failed] if failed else []))

    def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            self._follower.close()


def _origins(
    config: Config, proxies: Proxies, follower: Follower[Mapping[str, bytes]] | None
) -> Mapping[str, Origin[JwtBundle | None]]:
    """A file where one is named, the Workload API for every other trust domain that is accepted."""
    own, endpoint = config.trust_domain, config.identity.workload_api or ""
    origins: dict[str, Origin[JwtBundle | None]] = {}
    for name in (own, *config.identity.federates_with):
        if name in proxies.jwt_bundles:
            origins[name] = JwtBundleFile(name, proxies.jwt_bundles[name])
        elif follower is not None:
            origins[name] = PushedJwtBundle(follower, endpoint, name, foreign=name != own)
    return origins


def _following(endpoint: str) -> Follower[Mapping[str, bytes]]:
    # With py-spiffe, which a broker whose bundles are in files does not need.
    from broker.workloadapi.jwt_bundles import JwtBundlesApi

    return Follower(JwtBundlesApi(endpoint))
