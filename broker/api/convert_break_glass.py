"""Break-glass as the wire's messages; nothing is decided here."""

from __future__ import annotations

from datetime import datetime

from broker.api import convert
from broker.api.v1 import break_glass_pb2 as pb
from broker.breakglass.codes import Batch, KeptCode
from broker.breakglass.reviews import Use
from broker.issuance.break_glass import Option
from broker.ports.leases import Lease


def use(value: Use, lease: Lease, now: datetime) -> pb.BreakGlassUse:
    """One use as a message."""
    findings = value.findings
    return pb.BreakGlassUse(
        lease=convert.lease(lease, now),
        groups=sorted(value.groups),
        told=value.told,
        overrode=value.overrode,
        code_id=value.code_id,
        reviewer="" if findings is None else findings.reviewer,
        reviewer_name="" if findings is None else findings.reviewer_name,
        findings="" if findings is None else findings.text,
        review_time=None if findings is None else convert.timestamp(findings.at),
    )


def option(value: Option) -> pb.BreakGlassOption:
    """One template that somebody may break glass on as a message."""
    return pb.BreakGlassOption(
        template=value.template.name,
        description=value.template.description,
        accounts=sorted(value.template.accounts),
        environments=sorted(value.template.environments),
        resource=value.template.resource.expected,
        max_ttl=convert.to_duration(value.rule.max_ttl),
        groups=sorted(value.groups),
        blocked_by=value.blocked_by,
    )


def batch(value: Batch) -> pb.BreakGlassBatch:
    """A batch as a message."""
    return pb.BreakGlassBatch(
        id=value.id,
        person=value.person,
        person_name=value.person_name,
        count=value.count,
        reason=value.reason,
        requested_by=value.requested_by,
        request_time=convert.timestamp(value.requested_at),
        confirmed_by=value.confirmed_by,
    )


def kept_code(value: KeptCode, now: datetime) -> pb.KeptCode:
    """A code, without what opens anything, as a message."""
    return pb.KeptCode(
        id=value.id,
        batch_id=value.batch,
        person=value.person,
        person_name=value.person_name,
        state=value.state(now),
        create_time=convert.timestamp(value.created_at),
        expire_time=convert.timestamp(value.expires_at),
        used_by=value.used_by,
        failures=value.failures,
    )
