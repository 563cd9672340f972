"""From the wire's messages to :mod:`broker.client.model`, by name, without a line per field."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumValueDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from broker.api.v1 import credential_pb2
from broker.api.v1.broker_service_pb2 import RequestCredentialResponse
from broker.client import model
from broker.errors import Defect, Reason
from broker.lease.credential import (
    AwsAccessKey,
    AwsSession,
    Credential,
    DatabaseLogin,
    GcpToken,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.secret import Secret

T = TypeVar("T")

# Which class mirrors which message.
MIRRORS: dict[str, type] = {
    "broker.api.v1.WhoAmIResponse": model.Identity,
    "broker.api.v1.RevocationContract": model.RevocationContract,
    "broker.api.v1.NetworkBinding": model.NetworkBinding,
    "broker.api.v1.ParameterSpec": model.ParameterSpec,
    "broker.api.v1.ScopeTemplate": model.ScopeTemplate,
    "broker.api.v1.Task": model.TaskFacts,
    "broker.api.v1.Human": model.Human,
    "broker.api.v1.Lease": model.Lease,
    "broker.api.v1.PolicyTightened": model.PolicyTightened,
    "broker.api.v1.BreakGlass": model.BreakGlass,
    "broker.api.v1.LeaseEvent": model.LeaseEvent,
    "broker.api.v1.RegisteredAgent": model.RegisteredAgent,
    "broker.api.v1.Connector": model.Connector,
    "broker.api.v1.Canary": model.Canary,
    "broker.api.v1.CanaryMeasurement": model.CanaryMeasurement,
    "broker.api.v1.Doubt": model.Doubt,
    "broker.api.v1.Examination": model.Examination,
    "broker.api.v1.Reconciliation": model.Reconciliation,
    "broker.api.v1.UnknownCredential": model.UnknownCredential,
    "broker.api.v1.PlannedAction": model.PlannedAction,
    "broker.api.v1.Plan": model.Plan,
    "broker.api.v1.Delegation": model.Delegation,
    "broker.api.v1.CompleteTaskResponse": model.Completion,
    "broker.api.v1.Decision": model.Decision,
    "broker.api.v1.AccessRequest": model.AccessRequest,
    "broker.api.v1.ApprovalStatus": model.ApprovalStatus,
    "broker.api.v1.AccessRequestEvent": model.AccessRequestEvent,
}

_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in MIRRORS.values()}


def read(kind: type[T], message: Message) -> T:
    """``message`` as the class that mirrors it. A field that only one of the two has is left out."""
    descriptors = message.DESCRIPTOR.fields_by_name
    return kind(**{name: _value(message, descriptors[name]) for name in _FIELDS[kind]})


def grant(response: RequestCredentialResponse) -> model.Grant:
    """What was granted. Raises :class:`Defect` if the answer carries no credential we can read."""
    return model.Grant(
        lease=read(model.Lease, response.lease),
        credential=credential(response.credential),
        decision=read(model.Decision, response.decision),
    )


def credential(message: credential_pb2.Credential) -> Credential:
    """A credential as a value. Raises :class:`Defect` for one that we cannot read."""
    try:
        match message.WhichOneof("kind"):
            case "database_login":
                login = message.database_login
                return DatabaseLogin(
                    engine=login.engine,
                    host=login.host,
                    port=login.port,
                    database=login.database,
                    username=login.username,
                    password=Secret(login.password),
                )
            case "aws_session":
                session = message.aws_session
                return AwsSession(
                    access_key_id=session.access_key_id,
                    secret_access_key=Secret(session.secret_access_key),
                    session_token=Secret(session.session_token),
                    region=session.region,
                    assumed_role_arn=session.assumed_role_arn,
                    session_policy=session.session_policy,
                    endpoint_url=session.endpoint_url,
                )
            case "aws_access_key":
                access_key = message.aws_access_key
                return AwsAccessKey(access_key.access_key_id, Secret(access_key.secret_access_key), access_key.region)
            case "x509_certificate":
                x509 = message.x509_certificate
                return X509Certificate(x509.certificate, x509.ca_chain, x509.serial_number)
            case "ssh_certificate":
                ssh = message.ssh_certificate
                return SshCertificate(ssh.certificate, ssh.serial_number, tuple(ssh.principals))
            case "static_secret":
                static = message.static_secret
                values = {name: Secret(value) for name, value in static.values.items()}
                return StaticSecret(static.path, static.version, values)
            case "gcp_token":
                token = message.gcp_token
                return GcpToken(
                    access_token=Secret(token.access_token),
                    expires_at=moment(token.expire_time),
                    project=token.project,
                    service_account=token.service_account,
                    scopes=tuple(token.scopes),
                    access_boundary=token.access_boundary,
                )
            case "kubernetes_token":
                kubernetes = message.kubernetes_token
                return KubernetesToken(
                    token=Secret(kubernetes.token),
                    expires_at=moment(kubernetes.expire_time),
                    service_account=kubernetes.service_account,
                    namespace=kubernetes.namespace,
                    server=kubernetes.server,
                    cluster_ca=kubernetes.cluster_ca,
                )
            case "wrapped_secret":
                wrapped = message.wrapped_secret
                return WrappedSecret(
                    wrapping_token=Secret(wrapped.wrapping_token),
                    wrapping_accessor=wrapped.wrapping_accessor,
                    expires_at=moment(wrapped.expire_time),
                    address=wrapped.address,
                    namespace=wrapped.namespace,
                    kind=wrapped.kind,
                )
            case _:
                missing = "a kind of credential this client does not know"
    except ValueError:
        missing = "a credential without its secret"
    raise Defect(
        Reason.INTERNAL,
        f"The broker's answer carries {missing}.",
        hint="Is this client older than the broker? Unconfirmed, the credential is revoked by itself.",
    )


def _value(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if field.is_repeated:
        return tuple(_single(each, field) for each in value)
    if field.has_presence and not message.HasField(field.name):
        return None
    return _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if field.enum_type is not None:
        return enum_name(field.enum_type.values_by_number.get(value), value)
    if field.message_type is None:
        return value
    match field.message_type.full_name:
        case "google.protobuf.Timestamp":
            return value.ToDatetime(UTC)
        case "google.protobuf.Duration":
            return value.ToTimedelta()
        case name:
            return read(MIRRORS[name], value)


def moment(value: Timestamp) -> datetime:
    """A Timestamp as an aware datetime."""
    return value.ToDatetime(UTC)


def enum_name(known: EnumValueDescriptor | None, number: int) -> str:
    """``STATE_ACTIVE`` as ``ACTIVE``; empty for the unspecified one, the number for an unknown one."""
    if known is None:
        return str(number)
    prefix = known.type.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return known.name.removeprefix(prefix) if number else ""
