"""Between the wire's messages and the inside's values; nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from broker.api.v1 import broker_service_pb2 as service
from broker.api.v1 import contract_pb2, credential_pb2, lease_pb2, task_pb2, template_pb2
from broker.audit.report import Artifact, Mutation, TaskReport
from broker.breakglass.reviews import Use
from broker.canary.canary import Kind
from broker.canary.measurement import Measurement
from broker.errors import InvalidInput, Reason
from broker.lease.credential import (
    KINDS,
    AwsAccessKey,
    AwsSession,
    Contract,
    Credential,
    DatabaseLogin,
    GcpToken,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.lease.sealing import SUITE, SealedTo, check_recipient_key, seal
from broker.policy.decision import Decision
from broker.ports.leases import Lease, LeaseEvent, Tightened
from broker.ports.tasks import Task
from broker.scope.model import ScopeTemplate
from broker.scope.parameters import Parameter
from broker.scope.request import AccessRequest

NOT_MEASURED: Mapping[Kind, Measurement] = MappingProxyType({})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Decisions kept as messages, about a kilobyte each: policy answers from memory, too (broker/policy/cedar.py).
_DECISIONS = 1024
# protobuf's own limit for a Duration; beyond it a timedelta could overflow.
_MAX_SECONDS = 315_576_000_000


# ------------------------------------------------------------------ from the wire


def duration(message: Duration, field: str, reason: Reason = Reason.FIELD_INVALID) -> timedelta:
    """A Duration as a timedelta. Raises InvalidInput where its parts contradict or exceed protobuf's rules."""
    seconds, nanos = message.seconds, message.nanos
    if abs(seconds) > _MAX_SECONDS or abs(nanos) > 999_999_999 or (seconds > 0 > nanos) or (seconds < 0 < nanos):
        raise InvalidInput(
            reason,
            f"{field} is not a duration: {seconds} s and {nanos} ns.",
            hint="Give seconds and nanoseconds of one sign, for example 300s.",
            metadata={"field": field},
        )
    return timedelta(seconds=seconds, microseconds=nanos // 1000)


def access_request(message: service.RequestCredentialRequest) -> AccessRequest:
    """What was asked. A missing TTL is refused here, because zero would be something else."""
    if not message.HasField("ttl"):
        raise InvalidInput(
            Reason.TTL_INVALID,
            "ttl is missing; there is no default.",
            hint="Say for how long the credential is needed, at most the template's max_ttl.",
            metadata={"field": "ttl"},
        )
    texts = message.parameters
    return AccessRequest(
        request_id=message.request_id,
        template=message.template,
        task_id=message.task_id,
        account=message.account,
        environment=message.environment,
        resource=message.resource,
        ttl=duration(message.ttl, "ttl", Reason.TTL_INVALID),
        # One by one: asked for all its items, protobuf goes through them in Python, with twice the work.
        parameters={name: texts[name] for name in texts},
        step=message.step,
        intent=message.intent,
        reason=message.reason,
        ticket=message.ticket,
        prompt=message.prompt,
        tool_call=message.tool_call,
        plan=message.plan,
        recipient_public_key=_recipient(message.recipient_public_key),
        plan_id=message.plan_id,
        delegation_id=message.delegation_id,
        subject_public_key=message.subject_public_key,
        wrap=duration(message.wrap, "wrap", Reason.WRAP_TTL_INVALID) if message.HasField("wrap") else None,
    )


def _recipient(key: bytes) -> bytes:
    if key:
        check_recipient_key(key)
    return key


# ------------------------------------------------------------------ to the wire


def timestamp(value: datetime) -> Timestamp:
    """An aware datetime as a Timestamp."""
    since = value - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def to_duration(value: timedelta) -> Duration:
    """A timedelta as a Duration."""
    micros = value // _MICROSECOND
    if micros < 0:  # both parts have one sign
        return Duration(seconds=-(-micros // 1_000_000), nanos=-(-micros % 1_000_000) * 1000)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


def optional(value: datetime | None) -> Timestamp | None:
    """A time as a Timestamp; None stays None."""
    return None if value is None else timestamp(value)


def task(value: Task) -> task_pb2.Task:
    """A task as a message."""
    return task_pb2.Task(
        id=value.id,
        creator=value.creator,
        participants=sorted(value.participants),
        purpose=value.purpose,
        ticket=value.ticket,
        sponsor=value.sponsor,
        create_time=timestamp(value.created_at),
        deadline=timestamp(value.deadline),
        state=f"STATE_{value.state}",
        end_cause=value.cause or "",
        end_time=optional(value.ended_at),
        hold_grace=to_duration(value.hold_grace) if value.hold_grace else None,
        task_type=value.task_type,
        on_behalf_of=None if value.on_behalf_of is None else task_pb2.Human(**value.on_behalf_of._asdict()),
    )


def report(request: service.CompleteTaskRequest) -> TaskReport | None:
    """What the agent tells of its task's outcome; None where it tells nothing."""
    made = tuple(Artifact(each.uri, each.sha256, each.media_type, each.description) for each in request.artifacts)
    changed = tuple(
        Mutation(
            each.resource,
            service.Mutation.Action.Name(each.action).removeprefix("ACTION_"),
            each.description,
            each.count,
            each.lease_id,
        )
        for each in request.mutations
    )
    return TaskReport(made, changed) or None


def lease(value: Lease, now: datetime | None = None, promised: Contract | None = None) -> lease_pb2.Lease:
    """A lease as a message, with its connector's contract where that is told."""
    message = lease_pb2.Lease(
        id=value.id,
        task_id=value.task_id,
        holder=value.holder,
        request_id=value.request_id,
        template=value.template,
        connector=value.connector,
        account=value.account,
        environment=value.environment,
        resource=value.resource,
        access=value.access,
        actions=value.actions,
        step=value.step,
        contract_class=f"CONTRACT_CLASS_{value.contract_class}",
        policies=value.policies,
        policy_digest=value.policy_digest,
        state=f"STATE_{value.state}",
        end_cause=value.cause or "",
        create_time=timestamp(value.created_at),
        expire_time=timestamp(value.expires_at),
        confirm_by=optional(value.confirm_by),
        end_time=optional(value.ended_at),
        attempt_id=value.attempt_id,
        attempt_count=value.attempts,
        revoke_failures=value.failures,
        next_due_time=optional(value.next_due),
        plan_id=value.plan_id,
        parent_lease_id=value.parent_lease_id,
        delegation_id=value.delegation_id,
        access_request_id=value.access_request_id,
        policy_tightened=None if value.policy_tightened is None else _tightened(value.policy_tightened),
        break_glass=None if value.break_glass is None else _badge(value.break_glass, now),
        contract=None if promised is None else contract(promised),
        binding=binding(promised),
    )
    # One by one: handed a mapping, protobuf goes through it in Python, with three times the work.
    for name, text in value.parameters.items():
        message.parameters[name] = text
    return message


def _tightened(value: Tightened) -> lease_pb2.PolicyTightened:
    return lease_pb2.PolicyTightened(
        outcome=value.outcome,
        policies=value.policies,
        why=value.why,
        policy_digest=value.policy_digest,
        review_time=timestamp(value.at),
    )


def _badge(value: Use, now: datetime | None) -> lease_pb2.BreakGlass:
    """What a lease of break-glass wears. Without ``now``, its review is taken to be in time."""
    state = value.review_state(value.created_at if now is None else now)
    return lease_pb2.BreakGlass(
        person=value.person,
        person_name=value.person_name,
        reason=value.reason,
        incident=value.incident,
        authenticated_by=value.how,
        review_due_time=timestamp(value.review_due),
        review_state=f"REVIEW_STATE_{state}",
    )


def binding(promised: Contract | None) -> str:
    """The name of what a credential is bound to; unspecified where nobody knows."""
    return "BINDING_UNSPECIFIED" if promised is None else f"BINDING_{promised.binding}"


def listed_lease(value: Lease, now: datetime, promised: Contract | None) -> lease_pb2.Lease:
    """A lease as it stands in a page of many: without the contract's words, which all of a connector share."""
    message = lease(value, now)
    message.MergeFrom(lease_pb2.Lease(binding=binding(promised)))
    return message


def lease_event(value: LeaseEvent) -> lease_pb2.LeaseEvent:
    """One entry of a holder's stream as a message."""
    return lease_pb2.LeaseEvent(
        sequence=value.sequence,
        previous_sequence=value.previous,
        event_time=timestamp(value.at),
        type=value.type,
        lease=lease(value.lease),
    )


@lru_cache(maxsize=_DECISIONS)
def decision(value: Decision, promised: Contract | None) -> service.Decision:
    """A decision as a message, with the contract of what was decided on.

    One message for all that were decided alike: put it into another, which copies it, and change nothing of it.
    """
    return service.Decision(
        policies=value.policies,
        explanations=value.explanations,
        policy_digest=value.set_digest,
        effect=f"EFFECT_{value.effect}",
        approvals=value.approvals,
        contract=None if promised is None else contract(promised),
    )


def credential(value: Credential) -> credential_pb2.Credential:
    """The one place where secrets become bytes for the wire."""
    match value:
        case DatabaseLogin():
            login = credential_pb2.DatabaseLogin(
                engine=value.engine,
                host=value.host,
                port=value.port,
                database=value.database,
                username=value.username,
                password=value.password.reveal(),
            )
            return credential_pb2.Credential(database_login=login)
        case AwsSession():
            session = credential_pb2.AwsSession(
                access_key_id=value.access_key_id,
                secret_access_key=value.secret_access_key.reveal(),
                session_token=value.session_token.reveal(),
                region=value.region,
                assumed_role_arn=value.assumed_role_arn,
                session_policy=value.session_policy,
                endpoint_url=value.endpoint_url,
            )
            return credential_pb2.Credential(aws_session=session)
        case AwsAccessKey():
            access_key = credential_pb2.AwsAccessKey(
                access_key_id=value.access_key_id,
                secret_access_key=value.secret_access_key.reveal(),
                region=value.region,
            )
            return credential_pb2.Credential(aws_access_key=access_key)
        case X509Certificate():
            x509 = credential_pb2.X509Certificate(
                certificate=value.certificate, ca_chain=value.ca_chain, serial_number=value.serial_number
            )
            return credential_pb2.Credential(x509_certificate=x509)
        case SshCertificate():
            ssh = credential_pb2.SshCertificate(
                certificate=value.certificate, serial_number=value.serial_number, principals=value.principals
            )
            return credential_pb2.Credential(ssh_certificate=ssh)
        case StaticSecret():
            clear = {name: each.reveal() for name, each in value.values.items()}
            static = credential_pb2.StaticSecret(path=value.path, version=value.version, values=clear)
            return credential_pb2.Credential(static_secret=static)
        case GcpToken():
            token = credential_pb2.GcpToken(
                access_token=value.access_token.reveal(),
                expire_time=timestamp(value.expires_at),
                project=value.project,
                service_account=value.service_account,
                scopes=value.scopes,
                access_boundary=value.access_boundary,
            )
            return credential_pb2.Credential(gcp_token=token)
        case KubernetesToken():
            kubernetes = credential_pb2.KubernetesToken(
                token=value.token.reveal(),
                expire_time=timestamp(value.expires_at),
                service_account=value.service_account,
                namespace=value.namespace,
                server=value.server,
                cluster_ca=value.cluster_ca,
            )
            return credential_pb2.Credential(kubernetes_token=kubernetes)
        case WrappedSecret():
            wrapped = credential_pb2.WrappedSecret(
                wrapping_token=value.wrapping_token.reveal(),
                wrapping_accessor=value.wrapping_accessor,
                expire_time=timestamp(value.expires_at),
                address=value.address,
                namespace=value.namespace,
                kind=value.kind,
            )
            return credential_pb2.Credential(wrapped_secret=wrapped)


def sealed_credential(value: Credential, recipient: bytes, to: SealedTo) -> credential_pb2.SealedCredential:
    """The same for whoever holds the key, and for nobody on the way."""
    sealed = seal(credential(value).SerializeToString(), recipient, to)
    return credential_pb2.SealedCredential(
        suite=SUITE, encapsulated_key=sealed.encapsulated_key, ciphertext=sealed.ciphertext
    )


def contract(value: Contract, measured: Mapping[Kind, Measurement] = NOT_MEASURED) -> contract_pb2.RevocationContract:
    """A connector's contract as a message, beside it what canaries measured last."""
    revoke, expiry = measured.get(Kind.ON_REVOKE), measured.get(Kind.ON_EXPIRY)
    return contract_pb2.RevocationContract(
        measured_on_revoke=_measured(revoke),
        measured_on_revoke_time=None if revoke is None else timestamp(revoke.told_at),
        measured_on_expiry=_measured(expiry),
        measured_on_expiry_time=None if expiry is None else timestamp(expiry.told_at),
        measured_broken=any(each.broken for each in measured.values()),
        contract_class=f"CONTRACT_CLASS_{value.cls}",
        binding=binding(value),
        ttl_floor=to_duration(value.ttl_floor),
        ttl_ceiling=to_duration(value.ttl_ceiling),
        bound_on_expiry=to_duration(value.on_expiry),
        bound_on_revoke=None if value.on_revoke is None else to_duration(value.on_revoke),
        if_broker_dead=value.broker_dead,
        if_upstream_dead=value.upstream_dead,
        bound_on_broker_dead=None if value.on_broker_dead is None else to_duration(value.on_broker_dead),
        bound_on_upstream_dead=None if value.on_upstream_dead is None else to_duration(value.on_upstream_dead),
        networks=[contract_pb2.NetworkBinding(sources=each) for each in value.networks],
    )


def _measured(value: Measurement | None) -> Duration | None:
    return None if value is None or value.measured is None else to_duration(value.measured)


def template(
    value: ScopeTemplate, promised: Contract | None, measured: Mapping[Kind, Measurement] = NOT_MEASURED
) -> template_pb2.ScopeTemplate:
    """A template as a message, with its connector's contract."""
    return template_pb2.ScopeTemplate(
        name=value.name,
        description=value.description,
        connector=value.connector,
        accounts=sorted(value.accounts),
        environments=sorted(value.environments),
        resource=_parameter(value.resource),
        access=value.access,
        actions=value.actions,
        max_ttl=to_duration(value.max_ttl),
        required_fields=sorted(value.mandatory),
        parameters=[
            *(_parameter(each) for each in value.parameters.values()),
            *(_parameter(each.parameter, each.segment) for each in value.from_identity.values()),
        ],
        contract=None if promised is None else contract(promised, measured),
        digest=value.digest,
        sensitivity=value.risk.sensitivity,
        blast_radius=value.risk.blast_radius,
        reversibility=value.risk.reversibility,
        change_type=value.risk.change_type,
        promoted=value.risk.promoted,
        wrapping=value.wrapping,
        gives="" if promised is None or promised.gives is None else KINDS[promised.gives],
    )


def _parameter(value: Parameter, segment: str = "") -> template_pb2.ParameterSpec:
    return template_pb2.ParameterSpec(
        name=value.name, type=value.kind, expectation=value.expected, from_identity=segment
    )
