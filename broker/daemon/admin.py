"""People, where operators configured where they log in.

Belongs here: from the configuration to the verifier of ID tokens with its keys, and to the way in for the people's
door. What people can do there is ``broker/api/admin_*.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

from broker.api.people import PeopleEntrance
from broker.config import Config, People
from broker.errors import BrokerError
from broker.identity.id_token import Issuer
from broker.identity.operator import RoleGrants
from broker.issuance.id_tokens import IdTokens, TrustedIssuer
from broker.issuers.fetch import Fetcher
from broker.issuers.keys import HttpIssuerKeys, Place
from broker.metrics import KeysTally
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySource

_FIRST_SECONDS = 1.0


class PeopleAdmitted:
    """Who is believed to be a person. Made on the event loop; :meth:`close` ends it."""

    def __init__(self, config: Config, people: People) -> None:
        """Raises OSError where a CA file cannot be read."""
        self._config = config
        self._fetchers = {url: Fetcher(issuer.ca_file) for url, issuer in people.issuers.items()}
        self._keys = HttpIssuerKeys(
            {url: Place(url, self._fetchers[url], issuer.jwks_uri or "") for url, issuer in people.issuers.items()}
        )
        self.tokens = IdTokens(trusted(people), self._keys)

    def entrance(self, deploy: DeploySource, clock: Clock) -> PeopleEntrance:
        """The way in for the door."""
        grants = RoleGrants({role: frozenset(groups) for role, groups in self._config.roles.items()})
        return PeopleEntrance(lambda: self.tokens, grants, deploy, clock, self._config.tenant)

    async def start(self) -> None:
        """Ask every provider once, so that people can log in from the first moment on. Never raises for one.

        A provider that does not answer hardly delays the start: revocation has to go on.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await self._keys.refresh()

    async def run(self) -> None:
        """Keep the keys fresh, until cancelled."""
        await self._keys.follow()

    def alarms(self) -> tuple[BrokerError, ...]:
        """What is wrong with the keys while the last good ones stay in force."""
        return self._keys.alarms()

    def tallies(self) -> Mapping[str, KeysTally]:
        """For the metrics, by issuer."""
        return {issuer: KeysTally(*figures) for issuer, figures in self._keys.tallies().items()}

    async def close(self) -> None:
        """Let go of the connections."""
        for fetcher in self._fetchers.values():
            await fetcher.close()


def trusted(people: People) -> Mapping[str, TrustedIssuer]:
    """The providers of the configuration, by URL."""
    return {
        url: TrustedIssuer(
            Issuer(
                url,
                groups_claim=each.groups_claim or "",
                acr=frozenset(each.acr),
                amr=frozenset(each.amr),
                known_as=each.known_as or "",
            ),
            each.audience,
            each.on_behalf_of_audience or "",
        )
        for url, each in people.issuers.items()
    }
