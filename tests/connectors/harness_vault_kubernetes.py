"""The Kubernetes engine of the test's OpenBao as the contract suite drives it, against a double of Kubernetes."""

from __future__ import annotations

from broker.clock import SystemClock
from broker.connectors.kubernetes_use import ask_who_i_am
from broker.connectors.vault_kubernetes import VaultKubernetes, VaultKubernetesSettings
from broker.lease.credential import Credential
from broker.ports.connectors import Use
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import Harness
from tests.connectors.kubernetes_double import Cluster
from tests.connectors.misbehaving import behind_proxy, lying_vault, vault_refusal
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_attempts, broker_token, mounted
from tests.patience import PATIENCE

MOUNT = "kubernetes"
ROLE = "viewer"
GRANT = {"role": ROLE, "kubernetes_namespace": "shop"}
NAMES = '{{ printf "%s-%s" (.DisplayName | truncate 120) (random 8) | lowercase }}'


def kubernetes_scope(**changes: object) -> Scope:
    return make_scope({**GRANT, **changes})


def configure_kubernetes(bao: ConfiguredOpenBao, cluster: Cluster, **role: object) -> None:
    """The engine, its role, and what the broker may do there."""
    root = bao.root_client()
    mounted(root, MOUNT, "kubernetes")
    at = {"kubernetes_host": cluster.url, "kubernetes_ca_cert": cluster.ca, "service_account_jwt": cluster.root_token}
    root.write_data(f"{MOUNT}/config", data={**at, "disable_local_ca_jwt": True})
    made = {"kubernetes_role_name": "view", "kubernetes_role_type": "Role", "name_template": NAMES}
    root.delete(f"{MOUNT}/roles/{ROLE}")
    root.write_data(f"{MOUNT}/roles/{ROLE}", data={"allowed_kubernetes_namespaces": ["shop"], **(role or made)})
    allow_attempts(root, ROLE, f'path "{MOUNT}/creds/{ROLE}" {{ capabilities = ["update"] }}')


def kubernetes_connector(
    bao: ConfiguredOpenBao, cluster: Cluster, address: str | None = None, timeout: float = PATIENCE
) -> VaultKubernetes:
    settings = VaultKubernetesSettings(
        address or bao.facts.address, cluster.url, cluster.ca, MOUNT, timeout=timeout, threads=4
    )
    token = broker_token(bao.root_client())
    return VaultKubernetes("cluster", settings, lambda: token, SystemClock())


def kubernetes_harness(bao: ConfiguredOpenBao, cluster: Cluster, dead_address: str) -> Harness:
    configure_kubernetes(bao, cluster)

    def at(address: str, timeout: float) -> VaultKubernetes:
        return kubernetes_connector(bao, cluster, address, timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: kubernetes_connector(bao, cluster),
        make_unreachable=lambda: kubernetes_connector(bao, cluster, dead_address),
        scope=kubernetes_scope(),
        works=taken,
        misbehaving=behind_proxy(bao.facts.address, at, vault_refusal),
        lying=lying_vault(bao.facts.address, at),
    )


def taken(credential: Credential) -> bool:
    """Whether the cluster knows whose it is."""
    return ask_who_i_am("cluster", credential, PATIENCE) is Use.WORKS
