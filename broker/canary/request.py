"""What a canary asks for: one request like everybody's."""

from __future__ import annotations

from broker.canary.canary import Canary
from broker.scope.request import AccessRequest

STEP = "canary"


def purpose(canary: Canary) -> str:
    """In words, for the trail."""
    return f"measure how fast a credential of {canary.connector} ends"


def access_request(canary: Canary, request_id: str, task_id: str, public_key: str = "") -> AccessRequest:
    """The request of one run, on the run's own task; ``public_key``: of the run's own, where keys are certified."""
    return AccessRequest(
        request_id=request_id,
        template=canary.template,
        task_id=task_id,
        account=canary.account,
        environment=canary.environment,
        resource=canary.resource,
        ttl=canary.ttl,
        parameters=canary.parameters,
        step=STEP,
        intent=purpose(canary),
        reason=purpose(canary),
        subject_public_key=public_key,
    )
