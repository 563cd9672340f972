"""What is promised about ending a lease, at present: its connector's contract, and what its template narrows of it."""

from __future__ import annotations

from collections.abc import Callable

from broker.lease.credential import Contract
from broker.ports.connectors import Connector
from broker.ports.deploys import DeploySet
from broker.ports.leases import Lease


def promised(lease: Lease, deploy: DeploySet, connectors: Callable[[str], Connector | None]) -> Contract | None:
    """None while its connector does not run. By the template as it is now; one that is gone narrows nothing."""
    running = connectors(lease.connector)
    if running is None:
        return None
    template = deploy.templates.get(lease.template)
    if template is None or template.connector != lease.connector:
        return running.contract
    return running.contract.of_grant(template.grant)
