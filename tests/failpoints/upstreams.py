"""The upstreams that stories are told against: where each is, how a connector is made, what ends what is static."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from broker.connectors.postgresql_session import PostgresqlSettings
from broker.connectors.vault_database import VaultDatabase
from broker.dev.minio import MinioFacts
from broker.lease.credential import Credential, DatabaseLogin
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.scope.model import Scope
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors import harness_gcp as gcp
from tests.connectors import harness_vault_kv as kv
from tests.connectors.harness import aws_connector, aws_grant, can_log_in, vault_settings
from tests.connectors.harness_minio import minio_connector, reading_one_day
from tests.connectors.harness_postgresql import READ, postgresql_connector
from tests.connectors.harness_vault_kubernetes import (
    configure_kubernetes,
    kubernetes_connector,
    kubernetes_scope,
)
from tests.connectors.harness_vault_kubernetes import taken as taken_by_cluster
from tests.connectors.harness_vault_pki import configure_pki, pki_connector, pki_scope, taken
from tests.connectors.harness_vault_ssh import configure_ssh, ssh_connector, ssh_scope
from tests.connectors.kubernetes_double import Cluster
from tests.connectors.support import make_scope

# At an address, that gives a call up after so many seconds, by a clock.
Make = Callable[[str, float, Clock], Connector]
Works = Callable[[Credential], bool]


@dataclass(frozen=True)
class Upstream:
    """One. ``works``: whether it takes a credential, by its own clock; None where it cannot say."""

    target: str
    make: Make
    scope: Scope
    works: Works | None = None
    keeps_host: bool = False
    speaks_sql: bool = False
    fresh: Callable[[], object] = lambda: None  # before each story
    rotate: Callable[[], object] = lambda: None  # after it, where only that ends a credential


def by_clock(connector: Any, clock: Clock) -> Connector:
    """The connector, by another clock than the present."""
    assert hasattr(connector, "_clock")
    connector._clock = clock
    made: Connector = connector
    return made


def vault_database(bao: ConfiguredOpenBao) -> Upstream:
    def make(address: str, timeout: float, clock: Clock) -> Connector:
        return VaultDatabase("upstream", vault_settings(bao, address, timeout), bao.database.broker_token, clock)

    return Upstream(bao.facts.address, make, make_scope({"role": "orders-readonly"}), can_log_in)


def vault_pki(bao: ConfiguredOpenBao) -> Upstream:
    configure_pki(bao)
    return Upstream(
        bao.facts.address,
        lambda address, timeout, clock: by_clock(pki_connector(bao, address, timeout=timeout), clock),
        pki_scope(),
        lambda credential: taken(bao, credential),
    )


def vault_ssh(bao: ConfiguredOpenBao) -> Upstream:
    configure_ssh(bao)
    return Upstream(
        bao.facts.address, lambda address, timeout, clock: by_clock(ssh_connector(bao, address), clock), ssh_scope()
    )


def vault_kv(bao: ConfiguredOpenBao) -> Upstream:
    return Upstream(
        bao.facts.address,
        lambda address, timeout, clock: by_clock(kv.kv_connector(bao, address), clock),
        kv.kv_scope(),
        lambda credential: kv.is_current(bao, credential),
        fresh=lambda: kv.configure_kv(bao),
        rotate=lambda: kv.rotate(bao, "another-secret-of-the-mailer"),
    )


def vault_kubernetes(bao: ConfiguredOpenBao, cluster: Cluster) -> Upstream:
    configure_kubernetes(bao, cluster)
    return Upstream(
        bao.facts.address,
        lambda address, timeout, clock: by_clock(kubernetes_connector(bao, cluster, address), clock),
        kubernetes_scope(),
        taken_by_cluster,
    )


def aws_sts(double: str) -> Upstream:
    return Upstream(
        double,
        lambda address, timeout, clock: by_clock(aws_connector(address, timeout=timeout), clock),
        make_scope(aws_grant(), parameters={"prefix": "2031/05"}),
        keeps_host=True,
    )


def minio_sts(double: str) -> Upstream:
    facts = MinioFacts(double, Secret("root-password"), Secret("secret-of-the-broker"))
    return Upstream(
        double,
        lambda address, timeout, clock: by_clock(minio_connector(facts, address, timeout=timeout), clock),
        reading_one_day(),
        keeps_host=True,
    )


def postgresql(shop: PostgresqlSettings) -> Upstream:
    def make(address: str, timeout: float, clock: Clock) -> Connector:
        host, _, port = address.rpartition(":")
        return by_clock(postgresql_connector(shop, host=host, port=int(port), timeout=timeout), clock)

    def works(credential: Credential) -> bool:
        assert isinstance(credential, DatabaseLogin)
        return can_log_in(replace(credential, host=shop.host, port=shop.port))  # not by way of the proxy

    return Upstream(f"{shop.host}:{shop.port}", make, make_scope(READ), works, speaks_sql=True)


@contextmanager
def google(kind: str, clock: Clock) -> Iterator[Upstream]:
    """Its double keeps the broker's time."""
    with gcp.gcp_world(clock) as world:

        def make(address: str, timeout: float, clock: Clock) -> Connector:
            kinds = {"gcp-token": world.tokens, "gcp-pool": world.pool}
            return kinds[kind](address, timeout=timeout)

        scope = gcp.token_scope() if kind == "gcp-token" else gcp.pool_scope()
        yield Upstream(world.address, make, scope, world.works)
