"""The SSH engine of the test's OpenBao as the contract suite drives it: a CA, a role, the agent's key."""

from __future__ import annotations

import time
from datetime import timedelta

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

from broker.clock import SystemClock
from broker.connectors.vault_ssh import VaultSsh, VaultSshSettings
from broker.lease.credential import Credential, SshCertificate
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import LIE, NO_LIST, TIME_ALONE, Harness
from tests.connectors.misbehaving import behind_proxy, vault_refusal
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_broker, broker_token, mounted
from tests.patience import PATIENCE

MOUNT = "ssh"
ROLE = "hosts"
GRANT = {"role": ROLE, "principals": ["deploy"], "extensions": ["permit-pty"], "critical_options": {}}


def public_key() -> str:
    """A fresh key, as a line of OpenSSH."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def ssh_scope(key: str | None = None, **changes: object) -> Scope:
    return make_scope({**GRANT, **changes}, subject_public_key=public_key() if key is None else key)


def configure_ssh(bao: ConfiguredOpenBao, **role: object) -> None:
    """A CA of its own, a role, and what the broker may do there."""
    root = bao.root_client()
    if mounted(root, MOUNT, "ssh"):
        root.write_data(f"{MOUNT}/config/ca", data={"generate_signing_key": True, "key_type": "ed25519"})
    settings = {
        "key_type": "ca",
        "allow_user_certificates": True,
        "allow_user_key_ids": True,
        "allowed_users": "deploy,reports",
        "allowed_extensions": "permit-pty,permit-port-forwarding",
        "allowed_critical_options": "force-command,source-address",
        "default_extensions": {},
        "max_ttl": "1h",
    }
    root.write_data(f"{MOUNT}/roles/{ROLE}", data={**settings, **role})
    allow_broker(root, f'path "{MOUNT}/sign/*" {{ capabilities = ["update"] }}')


def ca_key(bao: ConfiguredOpenBao) -> str:
    """What servers have in TrustedUserCAKeys."""
    return str(bao.root_client().read(f"{MOUNT}/config/ca")["data"]["public_key"])


def ssh_connector(
    bao: ConfiguredOpenBao, address: str | None = None, timeout: float = PATIENCE, trusted_ca: str = ""
) -> VaultSsh:
    settings = VaultSshSettings(address or bao.facts.address, MOUNT, timeout=timeout, threads=4, trusted_ca=trusted_ca)
    token = broker_token(bao.root_client())
    return VaultSsh("ssh", settings, lambda: token, SystemClock())


def ssh_harness(bao: ConfiguredOpenBao, dead_address: str) -> Harness:
    configure_ssh(bao)

    def at(address: str, timeout: float) -> VaultSsh:
        return ssh_connector(bao, address, timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: ssh_connector(bao),
        make_unreachable=lambda: ssh_connector(bao, dead_address),
        scope=ssh_scope(),
        works=lambda credential: valid_now(credential),
        short_by=timedelta(seconds=2),
        misbehaving=behind_proxy(bao.facts.address, at, vault_refusal),
        cannot={**NO_LIST, LIE: TIME_ALONE},
    )


def read(credential: Credential) -> SSHCertificate:
    assert isinstance(credential, SshCertificate)
    certificate = load_ssh_public_identity(credential.certificate.encode())
    assert isinstance(certificate, SSHCertificate)
    certificate.verify_cert_signature()
    return certificate


def valid_now(credential: Credential) -> bool:
    """Whether a server that trusts the CA would take it."""
    certificate = read(credential)
    return certificate.valid_after <= time.time() < certificate.valid_before
