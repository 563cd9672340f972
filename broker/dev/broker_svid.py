"""brokerd's own SVID as files: certificate chain, key and trust bundle, renewed at half life.

The key stays the same across renewals, so that a reader who opens the two files while they change
never holds a certificate and a key that do not match.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from broker.dev.files import private_directory, write_private
from broker.dev.trust_domain import TrustDomain
from broker.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from broker.ports.clock import Clock


class BrokerSvidFiles:
    """``chain``, ``key`` and ``bundle`` (all PEM, 0600) under ``directory``."""

    def __init__(
        self,
        domain: TrustDomain,
        spiffe_id: SpiffeId,
        dns_names: tuple[str, ...],
        directory: Path,
        clock: Clock,
        ttl: timedelta = timedelta(hours=1),
    ) -> None:
        private_directory(directory)
        self.chain = directory / "svid.pem"
        self.key = directory / "svid.key"
        self.bundle = directory / "bundle.pem"
        self._domain = domain
        self._spiffe_id = spiffe_id
        self._dns_names = dns_names
        self._clock = clock
        self._ttl = ttl
        self._private_key = ec.generate_private_key(ec.SECP256R1())

    def write(self) -> None:
        """Mint and write. The key goes first: at a start, an old chain with the new key is the harmless mismatch."""
        svid = self._domain.x509_svid(
            self._spiffe_id,
            now=self._clock.now(),
            ttl=self._ttl,
            dns_names=self._dns_names,
            key=self._private_key,
        )
        write_private(self.bundle, self._domain.bundle_pem.decode())
        write_private(self.key, svid.key_pem.decode())
        write_private(self.chain, svid.certificate_pem.decode())

    async def keep_fresh(self) -> None:
        """Write again at every half life, until cancelled."""
        while True:
            await asyncio.sleep(self._ttl.total_seconds() / 2)
            await asyncio.to_thread(self.write)
