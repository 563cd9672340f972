"""An attempt from its intent to its end, as brokerd would carry it out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.clock import SystemClock
from broker.connectors.minio_sts import MinioSts
from broker.lease.credential import AwsSession
from broker.ports.connectors import Handle, RevokeOutcome
from broker.scope.model import Scope
from tests.connectors.harness_minio import reading_one_day
from tests.connectors.support import HOLDER, Ledger, new_attempt

CLOCK = SystemClock()


@dataclass(frozen=True)
class Held:
    """A session, and what the ledger keeps of it."""

    session: AwsSession
    expires_at: datetime
    ledger: Ledger

    @property
    def handle(self) -> Handle:
        return self.ledger.handle


async def held(connector: MinioSts, ttl: timedelta = timedelta(minutes=5), scope: Scope | None = None) -> Held:
    """A session of one day's reports, or of ``scope``."""
    ledger, expires_at = Ledger(), CLOCK.now() + ttl
    scope = scope or reading_one_day()
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    issued = await connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint)
    assert isinstance(issued.credential, AwsSession)
    return Held(issued.credential, issued.expires_at, ledger)


async def ended(connector: MinioSts, what: Held) -> RevokeOutcome:
    """What comes of ending it."""
    return await connector.revoke(what.handle, what.ledger.context(CLOCK.now()))


def wait_for(moment: datetime) -> None:
    """Until the wall clock says so: MinIO's own clock is what is tried."""
    while (left := (moment - CLOCK.now()).total_seconds()) > 0:
        time.sleep(left)
