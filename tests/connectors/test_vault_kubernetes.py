"""Tokens of service accounts, made by a real OpenBao in a double of Kubernetes, which takes none of what is deleted."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.connectors.vault_kubernetes import VaultKubernetes
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import KubernetesToken
from broker.ports.connectors import Issued, NotYet, Revoked, Use
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_kubernetes import configure_kubernetes, kubernetes_connector, kubernetes_scope
from tests.connectors.kubernetes_double import Cluster
from tests.connectors.support import HOLDER, Ledger, new_attempt

TTL = timedelta(minutes=1)


async def issue(connector: VaultKubernetes, ledger: Ledger, scope: Scope) -> Issued:
    expires_at = SystemClock().now() + TTL
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


async def test_its_service_account_is_its_own_and_goes_with_it(
    openbao_server: ConfiguredOpenBao, cluster: Cluster
) -> None:
    configure_kubernetes(openbao_server, cluster)
    connector, ledger, other = kubernetes_connector(openbao_server, cluster), Ledger(), Ledger()
    issued = await issue(connector, ledger, kubernetes_scope())
    kept = await issue(connector, other, kubernetes_scope())
    token = issued.credential
    assert isinstance(token, KubernetesToken)
    account = ("shop", token.service_account)
    assert str(ledger.handle["attempt"]) in token.service_account
    assert account in cluster.accounts
    assert account in cluster.bindings
    # The token's own time is longer than the lease: Kubernetes makes none that is shorter.
    assert token.expires_at > issued.expires_at + timedelta(minutes=8)
    assert await connector.use(token, kubernetes_scope()) is Use.WORKS
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert account not in cluster.accounts
    assert account not in cluster.bindings
    assert await connector.use(token, kubernetes_scope()) is Use.REFUSED
    assert await connector.use(kept.credential, kubernetes_scope()) is Use.WORKS
    assert isinstance(await connector.revoke(other.handle, other.context()), Revoked)
    await connector.close()


async def test_a_service_account_that_is_lent_is_refused_and_never_said_to_be_over(
    openbao_server: ConfiguredOpenBao, cluster: Cluster
) -> None:
    configure_kubernetes(openbao_server, cluster, service_account_name="reader")
    cluster.accounts[("shop", "reader")] = "was-there-before"
    connector, ledger = kubernetes_connector(openbao_server, cluster), Ledger()
    with pytest.raises(UpstreamFailed) as refused:
        await issue(connector, ledger, kubernetes_scope())
    assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), NotYet)
    late = ledger.context(SystemClock().now() + timedelta(minutes=11))
    assert isinstance(await connector.revoke(ledger.handle, late), Revoked)
    await connector.close()


@pytest.mark.parametrize("namespace", [None, "", "Shop", "shop/../kube-system", "a" * 64, "-shop", 5])
async def test_a_namespace_that_is_none_is_refused_before_anything_is_asked(
    openbao_server: ConfiguredOpenBao, cluster: Cluster, namespace: object
) -> None:
    connector = kubernetes_connector(openbao_server, cluster, "http://127.0.0.1:9")
    with pytest.raises(InvalidInput) as refused:
        scope = kubernetes_scope(kubernetes_namespace=namespace)
        connector.prepare(scope, new_attempt(), HOLDER, SystemClock().now() + TTL)
    assert refused.value.reason is Reason.CONFIG_INVALID
    await connector.close()


async def test_the_recipe_has_no_doubt(openbao_server: ConfiguredOpenBao, cluster: Cluster) -> None:
    configure_kubernetes(openbao_server, cluster)
    connector = kubernetes_connector(openbao_server, cluster)
    assert await connector.examine() == []
    await connector.close()


async def test_another_namespace_than_the_roles_is_refused_by_the_engine(
    openbao_server: ConfiguredOpenBao, cluster: Cluster
) -> None:
    configure_kubernetes(openbao_server, cluster)
    connector, before = kubernetes_connector(openbao_server, cluster), dict(cluster.accounts)
    with pytest.raises(UpstreamFailed):
        await issue(connector, Ledger(), kubernetes_scope(kubernetes_namespace="kube-system"))
    assert cluster.accounts == before
    await connector.close()
