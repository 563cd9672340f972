"""A partner's agent with a stock gRPC client: its own SVID, and of all bundles it was given, the broker's.

``stock_client.py TRUST-DOMAIN``: the broker's. Tells what PostgreSQL saw, or gRPC's word for the refusal.
"""

from __future__ import annotations

import json
import os
import sys
import uuid

import grpc
import psycopg
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.duration_pb2 import Duration
from spiffe import TrustDomain, WorkloadApiClient

from broker.api.v1 import broker_service_pb2 as pb
from broker.api.v1 import broker_service_pb2_grpc
from integration.spire.brokers import SERVER_NAME


def credentials(trust_domain: str) -> grpc.ChannelCredentials:
    with WorkloadApiClient() as client:
        context = client.fetch_x509_context(timeout=5.0)
    svid = context.default_svid
    bundle = context.x509_bundle_set.get_bundle_for_trust_domain(TrustDomain(trust_domain))
    assert bundle is not None, f"no bundle of {trust_domain}"
    return grpc.ssl_channel_credentials(
        b"".join(root.public_bytes(Encoding.PEM) for root in bundle.x509_authorities),
        svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        b"".join(each.public_bytes(Encoding.PEM) for each in svid.cert_chain),
    )


def login(stub: broker_service_pb2_grpc.BrokerServiceStub) -> dict[str, object]:
    who = stub.WhoAmI(pb.WhoAmIRequest(), timeout=10)
    task = stub.StartTask(pb.StartTaskRequest(request_id=str(uuid.uuid4()), purpose="audit deliveries"), timeout=10)
    asked = pb.RequestCredentialRequest(
        request_id=str(uuid.uuid4()), task_id=task.id, template="orders-readonly", account="shop",
        environment="production", resource="orders", ttl=Duration(seconds=300),
    )  # fmt: skip
    found = stub.RequestCredential(asked, timeout=30).credential.database_login
    with psycopg.connect(
        host=found.host, port=found.port, dbname=found.database, user=found.username, password=found.password
    ) as database:
        row = database.execute("SELECT session_user, count(*) FROM orders").fetchone()
    assert row is not None
    stub.CompleteTask(pb.CompleteTaskRequest(task_id=task.id, wait=Duration(seconds=10)), timeout=20)
    return {"spiffeId": who.spiffe_id, "login": row[0], "orders": row[1]}


def main(trust_domain: str) -> None:
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    with grpc.secure_channel(os.environ["BROKER_ADDRESS"], credentials(trust_domain), options) as channel:
        try:
            told = login(broker_service_pb2_grpc.BrokerServiceStub(channel))  # type: ignore[no-untyped-call]
        except grpc.RpcError as refusal:
            told = {"code": refusal.code().name}
    print(json.dumps(told))


main(sys.argv[1])
