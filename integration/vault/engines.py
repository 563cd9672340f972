"""The embedded default with four more engines of its OpenBao: what operators write, and what they set up there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.cli.demo.world import World
from broker.dev.files import write_private
from broker.dev.openbao import OpenBaoFacts
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_kubernetes import configure_kubernetes
from tests.connectors.harness_vault_kv import configure_kv
from tests.connectors.harness_vault_pki import configure_pki
from tests.connectors.harness_vault_ssh import MOUNT, configure_ssh
from tests.connectors.kubernetes_double import Cluster
from tests.connectors.vault_mount import broker_token, mounted

# The CA of the servers' TrustedUserCAKeys, which is there before any engine.
CA = ed25519.Ed25519PrivateKey.generate()
CA_PUBLIC = CA.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
PKI, SSH, KV, KUBERNETES, LOGINS = "engines-pki", "engines-ssh", "engines-kv", "engines-kubernetes", "openbao-orders"
GRANTS: dict[str, dict[str, Any]] = {
    PKI: {"role": "service", "common_name": "orders.example.org", "dns_names": []},
    SSH: {"role": "hosts", "principals": ["deploy"], "extensions": ["permit-pty"]},
    KV: {"static_accepted": True, "path": "shop/mailer", "version": 1, "fields": ["api-key"]},
    KUBERNETES: {"role": "viewer", "kubernetes_namespace": "shop"},
}
POLICY = """
@id("canaries-use-the-engines")
@reason("The broker measures how fast what these engines give out ends.")
permit (principal, action == Action::"read", resource)
when { principal.entry == "broker.canary" && resource.template like "engines-*" };
@id("a-static-secret-is-read-all-the-same")
@reason("There is no better way to that system.")
@permits("STATIC")
permit (principal, action == Action::"read", resource)
when { principal.roles.contains("analyst") && resource.template == "engines-kv" };
"""


def template(name: str, **changes: Any) -> dict[str, Any]:
    """A template of the connector of that name."""
    return {
        "name": name,
        "description": "What an engine gives out.",
        "connector": name,
        "accounts": ["dev"],
        "environments": ["dev"],
        "resource": {"type": "enum", "values": ["orders"]},
        "access": "read",
        "sensitivity": "internal",
        "blast_radius": "service",
        "reversibility": "reversible",
        "change_type": "none",
        "actions": ["use"],
        "max_ttl": "10m",
        "requires": ["intent"],
        "grant": GRANTS.get(name),
        **changes,
    }


class Engines:
    """``change`` is for the deploy set, ``set_up`` for the OpenBao that runs then."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._token = Path()

    def change(self, deploy: Path) -> None:
        """Four connectors, their templates and what policy says of them; logins may be wrapped."""
        self._token, path = deploy.parent.parent / "engines.token", deploy / "connectors.yaml"
        common = {"address": "env:BROKER_DEV_OPENBAO_ADDR", "token": f"file:{self._token}"}
        kubernetes = {"server": self._cluster.url, "cluster_ca": self._cluster.ca}
        settings: dict[str, dict[str, Any]] = {
            PKI: {"list_read_within": "1m"},
            SSH: {"trusted_ca": CA_PUBLIC},
            KV: {},
            KUBERNETES: kubernetes,
        }
        said = yaml.safe_load(path.read_text())
        canary = said["connectors"][LOGINS]["canary"]
        for name, own in settings.items():
            entry: dict[str, Any] = {"kind": name.replace("engines", "vault"), "settings": {**common, **own}}
            if name != KV:
                entry["canary"] = {**canary, "template": name}
            said["connectors"][name] = entry
            write_private(deploy / "templates" / f"{name}.yaml", yaml.safe_dump(template(name)))
        write_private(path, yaml.safe_dump(said))
        write_private(deploy / "policies" / "engines.cedar", POLICY)
        logins = deploy / "templates" / "orders-readonly.yaml"
        write_private(logins, logins.read_text() + "wrapping: allowed\n")

    def set_up(self, world: World) -> ConfiguredOpenBao:
        """The engines, and a token of the broker's own for them."""
        keys = json.loads((world.facts.state / "openbao" / "keys.json").read_text())
        reached = OpenBaoFacts(world.facts.openbao.address, Secret(keys["root_token"]), world.facts.state)
        bao = ConfiguredOpenBao(reached, world.facts.openbao)
        root = bao.root_client()
        mounted(root, MOUNT, "ssh")
        private = CA.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        authority = {"private_key": private, "public_key": CA_PUBLIC, "generate_signing_key": False}
        root.write_data(f"{MOUNT}/config/ca", data=authority)
        configure_pki(bao)
        configure_ssh(bao)
        configure_kv(bao)
        configure_kubernetes(bao, self._cluster)
        write_private(self._token, broker_token(root).reveal())
        return bao
