"""The KV store of the test's OpenBao as the contract suite drives it: one secret, in one version."""

from __future__ import annotations

from broker.clock import SystemClock
from broker.connectors.vault_kv import VaultKv, VaultKvSettings
from broker.lease.credential import Credential, StaticSecret
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import LIE, NO_LIST, Harness
from tests.connectors.misbehaving import behind_proxy, vault_refusal
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_broker, broker_token, mounted
from tests.patience import PATIENCE

MOUNT = "kv"
PATH = "shop/mailer"
VALUE = "the-secret-of-the-mailer"
GRANT = {"static_accepted": True, "path": PATH, "version": 1, "fields": ["api-key"]}


def kv_scope(**changes: object) -> Scope:
    return make_scope({**GRANT, **changes})


def configure_kv(bao: ConfiguredOpenBao) -> None:
    """The secret, anew in its first version, and what the broker may do there."""
    root = bao.root_client()
    mounted(root, MOUNT, "kv", options={"version": "2"})
    allow_broker(root, f'path "{MOUNT}/data/*" {{ capabilities = ["read"] }}')
    allow_broker(root, f'path "{MOUNT}/metadata/*" {{ capabilities = ["read"] }}')
    root.delete(f"{MOUNT}/metadata/{PATH}")
    rotate(bao, VALUE)


def rotate(bao: ConfiguredOpenBao, value: str) -> None:
    data = {"api-key": value, "other": "not-for-agents", "port": 25}
    bao.root_client().write_data(f"{MOUNT}/data/{PATH}", data={"data": data})


def kv_connector(bao: ConfiguredOpenBao, address: str | None = None, timeout: float = PATIENCE) -> VaultKv:
    settings = VaultKvSettings(address or bao.facts.address, MOUNT, timeout=timeout)
    token = broker_token(bao.root_client())
    return VaultKv("kv", settings, lambda: token, SystemClock())


def kv_harness(bao: ConfiguredOpenBao, dead_address: str) -> Harness:
    configure_kv(bao)

    def at(address: str, timeout: float) -> VaultKv:
        return kv_connector(bao, address, timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: kv_connector(bao),
        make_unreachable=lambda: kv_connector(bao, dead_address),
        scope=kv_scope(),
        works=lambda credential: is_current(bao, credential),
        misbehaving=behind_proxy(bao.facts.address, at, vault_refusal),
        rotate=lambda: rotate(bao, "another-" + VALUE),
        cannot={**NO_LIST, LIE: "nothing is told to end: what lies in the store is looked at"},
    )


def is_current(bao: ConfiguredOpenBao, credential: Credential) -> bool:
    """Whether it is what lies there now: nobody else could tell what it opens."""
    assert isinstance(credential, StaticSecret)
    told = bao.root_client().read(f"{MOUNT}/data/{credential.path}")["data"]["data"]
    return {name: value.reveal() for name, value in credential.values.items()} == {"api-key": told["api-key"]}
