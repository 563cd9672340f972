"""OpenSSH certificates of agents' own keys, by a real OpenBao, read by OpenSSH's own tool where it is."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.clock import SystemClock
from broker.connectors.vault_ssh import VaultSsh
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import SshCertificate
from broker.ports.connectors import Issued, Use
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_ssh import (
    ca_key,
    configure_ssh,
    public_key,
    read,
    ssh_connector,
    ssh_scope,
    valid_now,
)
from tests.connectors.support import HOLDER, Ledger, new_attempt
from tests.patience import until

TTL = timedelta(minutes=5)


@pytest.fixture
def ssh(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    """The engine with a good role, whatever a test makes of it."""
    configure_ssh(openbao_server)
    yield openbao_server
    configure_ssh(openbao_server)


async def issue(connector: VaultSsh, scope: Scope, ttl: timedelta = TTL) -> Issued:
    ledger, expires_at = Ledger(), SystemClock().now() + ttl
    handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at)
    try:
        return await ledger.issued(connector.issue(handle, scope, expires_at, ledger.checkpoint))
    finally:
        await connector.close()


async def test_openssh_reads_in_it_what_the_template_says(ssh: ConfiguredOpenBao, tmp_path: Path) -> None:
    options = {"force-command": "/usr/bin/report", "source-address": "10.0.0.0/8"}
    scope = ssh_scope(principals=["deploy", "reports"], critical_options=options)
    issued = await issue(ssh_connector(ssh), scope)
    certificate = read(issued.credential)
    assert certificate.valid_principals == [b"deploy", b"reports"]
    assert certificate.extensions == {b"permit-pty": b""}
    assert {name.decode(): value.decode() for name, value in certificate.critical_options.items()} == options
    tool = shutil.which("ssh-keygen")
    if tool is None:
        pytest.skip("OpenSSH is not here; the library has read it")
    assert isinstance(issued.credential, SshCertificate)
    file = tmp_path / "key-cert.pub"
    file.write_text(issued.credential.certificate + "\n")
    told = subprocess.run([tool, "-L", "-f", str(file)], capture_output=True, text=True, check=True).stdout
    for line in ("user certificate", "deploy", "reports", "permit-pty", "force-command /usr/bin/report", "10.0.0.0/8"):
        assert line in told
    assert "permit-port-forwarding" not in told


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP521R1()),
    ],
    ids=["Ed25519", "RSA", "P-521"],
)
async def test_the_agents_own_key_is_certified_without_its_comment(
    ssh: ConfiguredOpenBao, key: ed25519.Ed25519PrivateKey
) -> None:
    openssh = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = key.public_key().public_bytes(*openssh).decode()
    issued = await issue(ssh_connector(ssh), ssh_scope(line + " somebody@example.org\n"))
    assert read(issued.credential).public_key().public_bytes(*openssh).decode() == line


async def test_a_second_is_a_second(ssh: ConfiguredOpenBao) -> None:
    issued = await issue(ssh_connector(ssh), ssh_scope(), ttl=timedelta(seconds=1))
    assert issued.expires_at <= SystemClock().now() + timedelta(seconds=1)
    until(lambda: not valid_now(issued.credential))


async def test_it_is_looked_at_as_a_server_does(ssh: ConfiguredOpenBao) -> None:
    key = public_key()
    scope = ssh_scope(key)
    knowing = ssh_connector(ssh, trusted_ca=ca_key(ssh) + " of the tests")
    for seconds in (4, 20, 60):  # a busy machine may come to look at it after its end
        issued = await issue(ssh_connector(ssh), scope, ttl=timedelta(seconds=seconds))
        looked = await knowing.use(issued.credential, scope)
        if valid_now(issued.credential):
            break
    assert looked is Use.WORKS
    for other in (ssh_scope(), ssh_scope(key, principals=["reports"])):  # another's key, another login
        assert await knowing.use(issued.credential, other) is Use.REFUSED
    stranger = ssh_connector(ssh, trusted_ca=public_key())
    assert await stranger.use(issued.credential, scope) is Use.REFUSED
    until(lambda: not valid_now(issued.credential))
    assert await knowing.use(issued.credential, scope) is Use.REFUSED
    await knowing.close()
    await stranger.close()


async def test_without_a_ca_to_trust_it_cannot_be_told(ssh: ConfiguredOpenBao) -> None:
    connector, scope = ssh_connector(ssh), ssh_scope()
    issued = await issue(ssh_connector(ssh), scope)
    with pytest.raises(UpstreamFailed, match="trusted_ca") as unknown:
        await connector.use(issued.credential, scope)
    assert unknown.value.reason is Reason.CREDENTIAL_USE_UNKNOWN
    await connector.close()


@pytest.mark.parametrize(
    ("role", "reason"),
    [
        ({"allowed_users": "reports"}, Reason.UPSTREAM_REFUSED),
        ({"allowed_extensions": "permit-port-forwarding"}, Reason.UPSTREAM_REFUSED),
        ({"allow_user_key_ids": False}, Reason.UPSTREAM_REFUSED),
        ({"allow_user_certificates": False, "allow_host_certificates": True}, Reason.UPSTREAM_REFUSED),
        ({"default_critical_options": {"force-command": "true"}}, Reason.UPSTREAM_GRANT_MISMATCH),
    ],
)
async def test_a_role_that_grants_something_else_is_refused(
    ssh: ConfiguredOpenBao, role: dict[str, object], reason: Reason
) -> None:
    configure_ssh(ssh, **role)
    with pytest.raises(UpstreamFailed) as refused:
        await issue(ssh_connector(ssh), ssh_scope())
    assert refused.value.reason is reason
    configure_ssh(ssh, default_critical_options={})


async def test_extensions_that_the_role_adds_by_itself_are_refused(ssh: ConfiguredOpenBao) -> None:
    configure_ssh(ssh, default_extensions={"permit-port-forwarding": ""})
    with pytest.raises(UpstreamFailed) as refused:
        await issue(ssh_connector(ssh), ssh_scope(extensions=[]))
    assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH


@pytest.mark.parametrize(
    ("key", "grant"),
    [
        ("", {}),
        ("ssh-ed25519", {}),
        ("ssh-ed25519 AAAA", {}),
        ("ssh-ed25519 !!!!", {}),
        (public_key() + "\n" + public_key(), {}),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", {}),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", {}),
        ('command="sh" ' + public_key(), {}),
        (None, {"principals": []}),
        (None, {"principals": ["*"]}),
        (None, {"principals": ["deploy,root"]}),
        (None, {"principals": [7]}),
        (None, {"principals": None}),
        (None, {"extensions": ["no-such-thing"]}),
        (None, {"critical_options": {"verify-required": ""}}),
        (None, {"role": "../config/ca"}),
    ],
)
async def test_what_asks_for_anything_else_is_refused_before_anything_is_asked(
    ssh: ConfiguredOpenBao, dead_address: str, key: str | None, grant: dict[str, object]
) -> None:
    connector = ssh_connector(ssh, dead_address)
    with pytest.raises(InvalidInput) as refused:
        connector.prepare(ssh_scope(key, **grant), new_attempt(), HOLDER, SystemClock().now() + TTL)
    assert refused.value.reason in (Reason.FIELD_INVALID, Reason.CONFIG_INVALID)
    assert "AAAA" not in str(refused.value)
    await connector.close()
