"""Access requests and reviews as the wire's messages; nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from broker.api import convert
from broker.api.v1 import access_request_pb2, access_review_pb2
from broker.issuance.requests import statuses
from broker.issuance.review import Review
from broker.ports.access_requests import FiledRequest, RequestEventRecord
from broker.ports.deploys import DeploySet


def access_request(value: FiledRequest, deploy: DeploySet, now: datetime) -> access_request_pb2.AccessRequest:
    """A request as a message, with what it lacks by the rules and people in force."""
    scope = value.scope
    return access_request_pb2.AccessRequest(
        id=value.id,
        task_id=value.request.task_id,
        holder=value.holder,
        request_id=value.request.request_id,
        template=scope.template,
        connector=scope.connector,
        account=scope.account,
        environment=scope.environment,
        resource=scope.resource,
        access=scope.access,
        actions=scope.actions,
        parameters=scope.parameters,
        ttl=convert.to_duration(scope.ttl),
        step=value.request.step,
        contract_class=f"CONTRACT_CLASS_{value.contract_class}",
        state=f"STATE_{value.state}",
        approvals=[
            access_request_pb2.ApprovalStatus(name=each.name, description=each.description, missing=each.missing)
            for each in statuses(value, deploy, now)
        ],
        policies=value.policies,
        policy_digest=value.policy_digest,
        digest=value.digest,
        create_time=convert.timestamp(value.created_at),
        expire_time=convert.timestamp(value.expires_at),
        approve_time=convert.optional(value.approved_at),
        redeem_by=convert.optional(value.redeem_by),
        end_time=convert.optional(value.ended_at),
        note=value.note,
        lease_id=value.lease_id,
        sealed=bool(value.request.recipient_public_key),
    )


def access_request_event(
    value: RequestEventRecord, deploy: DeploySet, now: datetime
) -> access_request_pb2.AccessRequestEvent:
    """One entry of a holder's stream as a message."""
    return access_request_pb2.AccessRequestEvent(
        sequence=value.sequence,
        previous_sequence=value.previous,
        event_time=convert.timestamp(value.at),
        type=value.type,
        access_request=access_request(value.request, deploy, now),
    )


def review(value: Review, deploy: DeploySet, now: datetime) -> access_review_pb2.AccessReview:
    """What an approver sees as a message."""
    return access_review_pb2.AccessReview(
        access_request=access_request(value.filed, deploy, now),
        effect=value.effect,
        contract=None if value.contract is None else convert.contract(value.contract),
        principal=value.agent,
        agent_description=value.description,
        tier=value.tier,
        owner=value.owner,
        claims=[access_review_pb2.Claim(name=each.name, text=each.text) for each in value.claims],
        plan=value.plan,
        plan_diff=value.plan_diff,
        plan_diff_base=value.plan_diff_base,
        votes=[
            access_review_pb2.ApprovalVote(
                person=each.person,
                display_name=each.display_name,
                yes=each.yes,
                approval=each.approval,
                authenticated_by=each.how,
                note=each.note,
                vote_time=convert.timestamp(each.at),
                counts=each.counts,
            )
            for each in value.votes
        ],
        missing=value.missing,
        barred=value.barred,
        obstacle=value.obstacle,
    )
