"""Which signed deploy set came into force last, each operation inside one write transaction."""

from __future__ import annotations

from datetime import datetime

from broker.ports.deploys import AcceptedDeploy
from broker.stores.seal import tampered
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction

_TABLE = "accepted_deploy"


def accept(tx: Transaction, tenant: str, serial: int, digest: str, now: datetime) -> AcceptedDeploy:
    """See LeaseStore.accept_deploy."""
    asked, highest = AcceptedDeploy(serial, digest), _highest(tx, tenant)
    if highest is not None and asked != highest and serial <= highest.serial:
        return highest
    at = to_ms(now)
    mac, key_id = tx.seal.make(_TABLE, (tenant, serial, digest, at))
    values = {"tenant": tenant, "serial": serial, "digest": digest, "accepted_at": at}
    tx.run("set_accepted_deploy", {**values, "mac": mac, "mac_key_id": key_id})
    return asked


def _highest(tx: Transaction, tenant: str) -> AcceptedDeploy | None:
    row = tx.one("accepted_deploy", {"tenant": tenant})
    if row is None:
        return None
    serial, digest, at, mac, key_id = row
    if not tx.seal.holds(_TABLE, (tenant, serial, digest, at), mac, key_id):
        raise tampered(_TABLE, tenant)
    return AcceptedDeploy(serial, digest)
