"""From an operator's entry to an adapter: kinds, references, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.connectors.aws_sts import AwsSts
from broker.connectors.minio_sts import MinioSts
from broker.connectors.registry import build
from broker.connectors.vault_database import VaultDatabase
from broker.errors import InvalidInput, NotReady, Reason
from broker.lease.credential import DatabaseLogin
from broker.ports.connectors import Revoked
from broker.ports.deploys import ConnectorSpec
from broker.scope.canonical import JsonValue
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import can_log_in
from tests.connectors.support import HOLDER, Ledger, make_scope, new_attempt

VAULT: Mapping[str, JsonValue] = {
    "address": "env:OPENBAO",
    "token": "file:/run/broker.token",
    "mount": "database",
    "token_role": "jit-attempt",
    "policy_prefix": "jit-attempt-",
    "ca_file": None,
    "login": {"engine": "postgresql", "host": "env:PG_HOST", "port": "env:PG_PORT", "database": "orders"},
}
AWS: Mapping[str, JsonValue] = {
    "region": "eu-central-1",
    "partition": "aws",
    "endpoint_url": None,
    "access_key_id": "env:KEY",
    "secret_access_key": "file:/run/key",
}
MINIO: Mapping[str, JsonValue] = {
    "endpoint_url": "env:MINIO",
    "nodes": ["env:MINIO", "https://minio-2.example.org:9000"],
    "user": "jit-broker",
    "secret_key": "file:/run/key",
    "buckets": ["orders-reports"],
    "region": "us-east-1",
    "ca_file": None,
}
VALUES = {
    "env:MINIO": "http://127.0.0.1:9000",
    "env:OPENBAO": "http://127.0.0.1:8200",
    "file:/run/broker.token": "s.token",
    "env:PG_HOST": "127.0.0.1",
    "env:PG_PORT": "5432",
    "env:KEY": "AKIAEXAMPLE",
    "file:/run/key": "secret",
}


def resolve(reference: str) -> Secret:
    try:
        return Secret(VALUES[reference])
    except KeyError:
        raise NotReady(Reason.CONFIG_INVALID, f"{reference} is not there") from None


def spec(kind: str, settings: Mapping[str, JsonValue]) -> ConnectorSpec:
    return ConnectorSpec(name="upstream", kind=kind, settings=settings, digest="d")


async def test_each_kind_is_built() -> None:
    vault = build(spec("vault-database", VAULT), resolve, SystemClock())
    aws = build(spec("aws-sts", AWS), resolve, SystemClock())
    assert isinstance(vault, VaultDatabase)
    assert isinstance(aws, AwsSts)
    minio = build(spec("minio-sts", MINIO), resolve, SystemClock())
    assert isinstance(minio, MinioSts)
    for each in (vault, aws, minio):
        assert each.name == "upstream"
        await each.close()


async def test_a_built_connector_works(openbao_server: ConfiguredOpenBao) -> None:
    database = openbao_server.database
    values = {
        "env:OPENBAO": openbao_server.facts.address,
        "file:/run/broker.token": database.broker_token().reveal(),
        "env:PG_HOST": database.target.host,
        "env:PG_PORT": str(database.target.port),
    }
    clock, ledger = SystemClock(), Ledger()
    connector = build(spec("vault-database", VAULT), lambda reference: Secret(values[reference]), clock)
    scope, expires_at = make_scope({"role": "orders-readonly"}), clock.now() + timedelta(minutes=5)
    handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    issued = await ledger.issued(connector.issue(handle, scope, expires_at, ledger.checkpoint))
    assert isinstance(issued.credential, DatabaseLogin)
    assert can_log_in(issued.credential)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context(clock.now())), Revoked)
    await connector.close()


@pytest.mark.parametrize(
    ("kind", "settings", "field"),
    [
        ("vault", VAULT, None),
        ("", VAULT, None),
        ("vault-database", {}, "login"),
        ("vault-database", {**VAULT, "address": None}, "address"),
        ("vault-database", {**VAULT, "address": 7}, "address"),
        ("vault-database", {**VAULT, "token": "s.the-token-itself"}, "token"),
        ("vault-database", {**VAULT, "token": None}, "token"),
        ("vault-database", {**VAULT, "login": {**VAULT["login"], "port": 0}}, "port"),  # type: ignore[dict-item]
        ("vault-database", {**VAULT, "login": {**VAULT["login"], "port": True}}, "port"),  # type: ignore[dict-item]
        ("vault-database", {**VAULT, "login": {**VAULT["login"], "port": "env:PG_HOST"}}, "port"),  # type: ignore[dict-item]
        ("aws-sts", {}, "region"),
        ("aws-sts", {**AWS, "secret_access_key": None}, "secret_access_key"),
        ("aws-sts", {**AWS, "access_key_id": None}, "access_key_id"),
        ("aws-sts", {**AWS, "secret_access_key": "the-key-itself"}, "secret_access_key"),
        ("minio-sts", {**MINIO, "endpoint_url": None}, "endpoint_url"),
        ("minio-sts", {**MINIO, "nodes": "https://minio-2.example.org"}, "nodes"),
        ("minio-sts", {**MINIO, "nodes": ["https://minio-2.example.org", 7]}, "nodes"),
        ("minio-sts", {**MINIO, "user": None}, "user"),
        ("minio-sts", {**MINIO, "secret_key": "the-key-itself"}, "secret_key"),
    ],
)
def test_a_wrong_entry_is_refused_by_name_and_not_quoted(
    kind: str, settings: Mapping[str, JsonValue], field: str | None
) -> None:
    with pytest.raises(InvalidInput) as caught:
        build(spec(kind, settings), resolve, SystemClock())
    assert caught.value.reason is Reason.CONFIG_INVALID
    assert caught.value.metadata.get("field") == field
    assert "itself" not in str(caught.value)


def test_an_address_that_cannot_be_resolved_is_told_at_once() -> None:
    with pytest.raises(NotReady):
        build(spec("vault-database", {**VAULT, "address": "env:ABSENT"}), resolve, SystemClock())
