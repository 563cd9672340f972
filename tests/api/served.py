"""brokerd as it is wired, in this process, over real mTLS, with a fake upstream behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from broker.api.v1 import access_review_pb2 as review_pb
from broker.api.v1 import admin_service_pb2 as admin_pb
from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1.admin_service_pb2_grpc import AdminServiceStub
from broker.api.v1.broker_service_pb2_grpc import BrokerServiceStub
from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, RESUME_SUSPENSION, nonce_of
from broker.approval.rules import ApprovalRule, Quorum
from broker.clock import SystemClock
from broker.config import load_config
from broker.connectors.lending import Lending
from broker.daemon.wiring import Brokerd
from broker.deployfiles.load import policy_schema
from broker.dev.identity_provider import CLIENT_ID, ON_BEHALF_OF, IdentityProvider
from broker.dev.identity_provider_http import IdentityProviderServer
from broker.dev.loopback import free_port
from broker.keys import new_key
from broker.policy.cedar import PolicySet
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.ports.deploys import ConnectorSpec
from tests.connectors.fake import FakeConnector
from tests.forge import Forged, authority
from tests.gates import gates
from tests.patience import PATIENCE

DOMAIN = "dev.broker.internal"
CA = authority(DOMAIN, at=datetime.now(UTC).replace(microsecond=0))
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "dev"
ANALYST = f"spiffe://{DOMAIN}/agent/analyst"
MIGRATOR = f"spiffe://{DOMAIN}/agent/migrator"
OTHER = f"spiffe://{DOMAIN}/agent/other"


def svid(uri: str = ANALYST, **defects: Any) -> Forged:
    return CA.svid(uri, **defects)


# Ten times as fast as the other, which is written in Python.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def private(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(0o600)
    return path


def without_canary(deploy: Path) -> None:
    """For a set whose templates are changed, so that the broker's own requests would not fit them."""
    file = deploy / "connectors.yaml"
    said = yaml.safe_load(file.read_text())
    for entry in said["connectors"].values():
        entry.pop("canary", None)
    private(file, yaml.safe_dump(said, sort_keys=False))
    for policies in (deploy / "policies").glob("canaries.*"):
        policies.unlink()


@cache
def deploy_files() -> dict[Path, bytes]:
    """Of deploy/dev, by their paths in it."""
    return {path.relative_to(DEPLOY): path.read_bytes() for path in DEPLOY.rglob("*") if path.is_file()}


def write_config(root: Path, **changes: Any) -> Path:
    """A whole configuration under ``root``: files, keys, a private copy of deploy/dev."""
    deploy = root / "deploy"
    if not deploy.exists():
        deploy.mkdir(parents=True, mode=0o700)
        for relative, text in deploy_files().items():
            private(deploy / relative, text)
    server = svid(f"spiffe://{DOMAIN}/broker", dns=["localhost"])
    private(root / "identity" / "broker.pem", server.pem)
    private(root / "identity" / "broker.key", server.key_pem)
    private(root / "identity" / "bundle.pem", CA.pem)
    private(root / "keys" / "mac.key", new_key())
    (root / "state").mkdir(exist_ok=True, mode=0o700)
    document = {
        "tenant": "test",
        "trust_domain": DOMAIN,
        "listen": {"agents": f"127.0.0.1:{free_port()}", "operations": f"127.0.0.1:{free_port()}"},
        "identity": {
            "certificate": "identity/broker.pem",
            "private_key": "identity/broker.key",
            "bundles": {DOMAIN: "identity/bundle.pem"},
        },
        "deploy": {"directory": "deploy"},
        "state": {"directory": "state", "ballast": "64KiB"},
        "keys": {"ledger": ["file:keys/mac.key"]},
        "audit": {"export_file": "audit.jsonl"},
        "limits": {"issue_timeout": f"{PATIENCE:g}s", "drain_timeout": f"{PATIENCE:g}s"},
        "revocation": {"tick": "50ms"},
        **changes,
    }
    return private(root / "brokerd.yaml", yaml.dump(document, Dumper=_DUMPER))


@dataclass
class Served:
    """A running brokerd and how to talk to it."""

    root: Path
    daemon: Brokerd
    upstreams: dict[str, FakeConnector]
    port: int
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    provider: IdentityProvider | None = None  # where the configuration names one

    @property
    def identity_provider(self) -> IdentityProvider:
        assert self.provider is not None
        return self.provider

    @property
    def upstream(self) -> FakeConnector:
        return self.upstreams["openbao-orders"]

    def channel(self, client: Forged | None = None, *, roots: bytes = CA.pem) -> grpc.aio.Channel:
        made = svid() if client is None else client
        credentials = grpc.ssl_channel_credentials(roots, made.key_pem, made.pem + made.chain_pem)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
        channel = grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options)
        self.channels.append(channel)
        return channel

    def stub(self, client: Forged | str | None = None) -> BrokerServiceStub:
        return BrokerServiceStub(self.channel(svid(client) if isinstance(client, str) else client))

    async def audit(self) -> list[dict[str, Any]]:
        """Every audit record so far."""
        store = self.daemon._store
        assert store is not None
        return [json.loads(record) for record in await store.audit_since(0, 100_000)]

    async def refusals(self) -> list[tuple[str, str]]:
        """(actor, reason) of every recorded refusal."""
        return [(r["actor"], r["data"]["reason"]) for r in await self.audit() if r["type"] == "request.refused"]


@asynccontextmanager
async def serve(
    root: Path,
    *,
    clock: Clock | None = None,
    build: Callable[[ConnectorSpec], Connector] | None = None,
    served_provider: bool = True,
    lending: Lending | None = None,
    **changes: Any,
) -> AsyncIterator[Served]:
    """brokerd on a configuration under ``root``; ``build`` makes other connectors than the fake one.

    The issuer of ``people``, where there is one, is the development provider, unless the test has one of its own.
    """
    config = load_config(write_config(root, **changes))
    upstreams: dict[str, FakeConnector] = {}
    time = clock or SystemClock()

    def fake(spec: ConnectorSpec) -> Connector:
        return upstreams.setdefault(spec.name, FakeConnector(time, name=spec.name))

    daemon = Brokerd(config, time, build or fake, lending)
    provider = server = None
    if config.people is not None and served_provider:
        people = daemon._files.current.people.values()
        provider = IdentityProvider(next(iter(config.people.issuers)), people, time)
        server = IdentityProviderServer(provider, time)
        await server.start()
    # Neither a machine that stands still nor a test's clock that jumps is a revoker that is stuck, which is what
    # tests/issuance/test_gate.py is about.
    daemon.gate.max_heartbeat_age = timedelta(days=1)
    try:
        await daemon.start()
        served = Served(root, daemon, upstreams, daemon.doors.agents_port, provider=provider)
        try:
            yield served
        finally:
            for channel in served.channels:
                await channel.close()
            await daemon.stop()
    finally:
        if server is not None:
            await server.stop()


def reason(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str]:
    """(status, ErrorInfo.reason); there must be exactly one ErrorInfo."""
    return error.code(), error_info(error).reason


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert status is not None, error
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo()
    infos[0].Unpack(info)
    return info


async def start_task(stub: BrokerServiceStub, request_id: str = "t1", **fields: Any) -> str:
    task = await stub.StartTask(pb.StartTaskRequest(request_id=request_id, purpose="testing", **fields))
    return str(task.id)


def ask(task: str, request: str = "r1", **changes: Any) -> pb.RequestCredentialRequest:
    """A good request for orders-readonly; ``changes`` replace fields (None removes one)."""
    fields: dict[str, Any] = {
        "request_id": request,
        "task_id": task,
        "template": "orders-readonly",
        "account": "dev",
        "environment": "dev",
        "resource": "orders",
        "ttl": {"seconds": 60},
        "intent": "count the orders",
        **changes,
    }
    return pb.RequestCredentialRequest(**{key: value for key, value in fields.items() if value is not None})


# ------------------------------------------------------------------ people

# As people.yaml of deploy/dev names their provider, which is somewhere on this machine.
ISSUER = {
    "audience": CLIENT_ID,
    "on_behalf_of_audience": ON_BEHALF_OF,
    "groups_claim": "groups",
    "known_as": "https://id.dev.broker.internal",
}
ROLES = {"viewer": ["data-platform"], "operator": ["operations"], "security": ["security"]}
# Where people decide, too.
DECIDING = {**ROLES, "approver": ["operations", "data-platform"]}


def people_changes(root: Path) -> dict[str, Any]:
    """What ``serve`` needs beside the rest to let the people of deploy/dev in, with a provider of their own."""
    listen = {name: f"127.0.0.1:{free_port()}" for name in ("agents", "admin", "operations")}
    return {"listen": listen, "people": {"issuers": {f"http://127.0.0.1:{free_port()}": ISSUER}}, "roles": ROLES}


def token(served: Served, key: str, nonce: str = "", **changes: Any) -> str:
    """The ID token of a login; ``changes`` as of the provider's ``id_token``."""
    return served.identity_provider.id_token(key, CLIENT_ID, nonce, **changes)


def fresh(served: Served, key: str, action: str, **fields: str) -> str:
    """The ID token of a login for exactly this act."""
    return token(served, key, nonce_of(action, fields))


def approval(served: Served, key: str, filed: Any, **changes: str) -> review_pb.ApproveAccessRequestRequest:
    """A yes of this person, who has just logged in for exactly this request; ``changes`` replace fields."""
    fields = {"access_request_id": filed.id, "digest": filed.digest}
    proof = fresh(served, key, APPROVE_ACCESS_REQUEST, **fields)
    return review_pb.ApproveAccessRequestRequest(**{**fields, "request_id": "v1", "fresh_id_token": proof, **changes})


def resumption(served: Served, key: str, suspension: str, **changes: str) -> admin_pb.ResumeRequest:
    """A word of this person, who has just logged in for exactly this; ``changes`` replace fields."""
    fields = {"suspension_id": suspension, "reason": "it is well"}
    proof = fresh(served, key, RESUME_SUSPENSION, **fields)
    return admin_pb.ResumeRequest(**{**fields, "request_id": "r1", "fresh_id_token": proof, **changes})


class _Bearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Not gRPC's call credentials: as this process closes its servers and channels, these can deadlock."""

    def __init__(self, token: str) -> None:
        self._authorization = ("authorization", f"Bearer {token}")

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), self._authorization)
        return await continuation(details._replace(metadata=metadata), request)


def admin_stub(served: Served, token: str | None) -> AdminServiceStub:
    """Of somebody at the people's door with this bearer token; None: with none."""
    credentials = grpc.ssl_channel_credentials(CA.pem)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost")]
    bearer = [] if token is None else [_Bearer(token)]
    channel = grpc.aio.secure_channel(
        f"127.0.0.1:{served.daemon.doors.admin_port}", credentials, options=options, interceptors=bearer
    )
    served.channels.append(channel)
    return AdminServiceStub(channel)


def person(served: Served, key: str) -> AdminServiceStub:
    """The person's own way in."""
    return admin_stub(served, token(served, key))


# ------------------------------------------------------------------ approvals

SRE = ApprovalRule(
    "sre", "Somebody who runs it.", (Quorum("operations", 1),), timedelta(minutes=10), timedelta(minutes=5)
)


def gate(served: Served, *rules: ApprovalRule, **needed: tuple[str, ...]) -> None:
    """From now on (until a reload) these environments need these approvals, beside what deploy/dev asks for."""
    files = served.daemon._files
    texts = {path.name: path.read_text() for path in (served.root / "deploy" / "policies").glob("*.cedar")}
    policies = PolicySet.parse({**texts, "gates.cedar": gates("environment", needed)}, policy_schema())
    approvals = {**files.current.approvals, **{rule.name: rule for rule in (SRE, *rules)}}
    files.adopt(replace(files.current, policies=policies, approvals=approvals))
