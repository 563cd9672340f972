"""An agent with an SVID asks a whole brokerd for what each engine gives out: uses it, completes, is refused.

Real parts: brokerd, SVIDs, OpenBao, PostgreSQL; the Kubernetes API is a double. What canaries measure of these engines
is ``integration/test_vault_canaries.py``'s.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_identity,
)

from broker.cli.demo.world import READ_ORDERS, World, agent_id
from broker.client import AsyncClient, Grant
from broker.connectors.kubernetes_use import ask_who_i_am
from broker.dev.openbao import client_for
from broker.errors import BrokerError, Reason
from broker.lease.credential import (
    DatabaseLogin,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.ports.connectors import Use
from broker.scope.request import AccessRequest
from broker.secret import Secret
from integration.vault.engines import CA_PUBLIC, KUBERNETES, KV, PKI, SSH
from tests.connectors.harness import can_log_in
from tests.connectors.harness_vault_kv import VALUE
from tests.connectors.harness_vault_pki import request_of
from tests.connectors.harness_vault_ssh import public_key
from tests.patience import eventually

COMMAND = [sys.executable, "-m", "broker.cli"]


def asking(template: str, **changes: object) -> AccessRequest:
    return replace(READ_ORDERS, template=template, **changes)  # type: ignore[arg-type]


async def ended(world: World, agent: AsyncClient, grant: Grant, state: str = "REVOKED") -> None:
    """Its task is completed, and the upstream has confirmed that it is over."""
    await agent.complete_task(grant.lease.task_id)

    async def over() -> bool:
        return (await agent.lease(grant.lease.id)).state == state

    await eventually(over)


async def refused(work: Callable[[], Awaitable[object]]) -> Reason:
    try:
        await work()
    except BrokerError as refusal:
        return refusal.reason
    raise AssertionError("it was granted")


async def test_each_engine_through_the_whole_broker(world: World, tmp_path: Path) -> None:
    agent = world.agent("analyst")
    await _a_certificate(world, agent)
    await _an_ssh_certificate(world, agent)
    await _a_static_secret(world, agent)
    await _a_service_account(world, agent)
    await _a_login_that_is_wrapped(world, agent)
    await asyncio.to_thread(_with_the_command_line, world, tmp_path)


async def _a_certificate(world: World, agent: AsyncClient) -> None:
    task = await agent.start_task("be known to the orders service")
    assert await refused(lambda: world.ask(agent, asking(PKI), task.id)) is Reason.FIELD_INVALID  # no key
    grant = await world.ask(agent, asking(PKI, subject_public_key=request_of()), task.id)
    assert isinstance(grant.credential, X509Certificate)
    certificate = x509.load_pem_x509_certificate(grant.credential.certificate.encode())
    (authority,) = x509.load_pem_x509_certificates(grant.credential.ca_chain.encode())
    certificate.verify_directly_issued_by(authority)
    listed = await asyncio.to_thread(_revoked_numbers, world)
    assert certificate.serial_number not in listed
    await ended(world, agent, grant)
    assert certificate.serial_number in await asyncio.to_thread(_revoked_numbers, world)
    again = asking(PKI, subject_public_key=request_of())
    assert await refused(lambda: world.ask(agent, again, task.id)) is Reason.TASK_ENDED


def _revoked_numbers(world: World) -> set[int]:
    """As anybody reads the list, without a token."""
    session = client_for(world.facts.openbao.address, None).session
    listed = x509.load_der_x509_crl(session.get(f"{world.facts.openbao.address}/v1/pki/crl").content)
    return {each.serial_number for each in listed}


async def _an_ssh_certificate(world: World, agent: AsyncClient) -> None:
    task = await agent.start_task("look at a host")
    key = public_key()
    grant = await world.ask(agent, asking(SSH, subject_public_key=key), task.id, timedelta(seconds=8))
    assert isinstance(grant.credential, SshCertificate)
    certificate = load_ssh_public_identity(grant.credential.certificate.encode())
    assert isinstance(certificate, SSHCertificate)
    certificate.verify_cert_signature()
    openssh = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    assert certificate.signature_key().public_bytes(*openssh).decode() == CA_PUBLIC
    assert certificate.public_key().public_bytes(*openssh).decode() == key
    # Only time ends it, and the ledger says so.
    await ended(world, agent, grant, "EXPIRED")
    assert world.clock.now().timestamp() >= certificate.valid_before
    assert await refused(lambda: world.ask(agent, asking(SSH, subject_public_key=key), task.id)) is Reason.TASK_ENDED


async def _a_static_secret(world: World, agent: AsyncClient) -> None:
    other = world.agent("other")
    theirs = await other.start_task("send mail")
    mine = await agent.start_task("send mail")
    grant = await world.ask(agent, asking(KV), mine.id)
    assert isinstance(grant.credential, StaticSecret)
    assert {name: each.reveal() for name, each in grant.credential.values.items()} == {"api-key": VALUE}
    migrator = world.agent("migrator")
    its = await migrator.start_task("send mail")
    assert await refused(lambda: world.ask(migrator, asking(KV), its.id)) is Reason.POLICY_DENIED
    for client, task in ((other, theirs), (migrator, its)):
        await client.complete_task(task.id)
    await agent.complete_task(mine.id)
    assert (await agent.lease(grant.lease.id)).state == "REVOKING"  # only rotation ends it
    assert await refused(lambda: world.ask(agent, asking(KV), mine.id)) is Reason.TASK_ENDED


async def _a_service_account(world: World, agent: AsyncClient) -> None:
    task = await agent.start_task("see what runs in the shop")
    grant = await world.ask(agent, asking(KUBERNETES), task.id)
    assert isinstance(grant.credential, KubernetesToken)

    def used() -> Use:
        return ask_who_i_am("the agent", grant.credential, 10)

    assert await asyncio.to_thread(used) is Use.WORKS
    await ended(world, agent, grant)
    assert await asyncio.to_thread(used) is Use.REFUSED
    assert await refused(lambda: world.ask(agent, asking(KUBERNETES), task.id)) is Reason.TASK_ENDED


async def _a_login_that_is_wrapped(world: World, agent: AsyncClient) -> None:
    task = await agent.start_task("hand a login to a job")
    grant = await world.ask(agent, replace(READ_ORDERS, wrap=timedelta(minutes=1)), task.id)
    wrapped = grant.credential
    assert isinstance(wrapped, WrappedSecret)
    client = client_for(wrapped.address, wrapped.wrapping_token)
    inside = (await asyncio.to_thread(client.sys.unwrap))["data"]
    await asyncio.to_thread(_unwrapped_once, wrapped)
    await asyncio.to_thread(_logs_in, inside, True)
    await ended(world, agent, grant)
    await asyncio.to_thread(_logs_in, inside, False)


def _unwrapped_once(wrapped: WrappedSecret) -> None:
    try:
        client_for(wrapped.address, wrapped.wrapping_token).sys.unwrap()
    except Exception as second:  # noqa: BLE001 - whatever hvac makes of a 400 or 403
        assert "wrapping token is not valid" in str(second) or "permission denied" in str(second)
    else:
        raise AssertionError("it was unwrapped twice")


def _logs_in(inside: dict[str, object], expected: bool) -> None:
    told = {**inside, "password": Secret(str(inside["password"]))}
    assert can_log_in(DatabaseLogin(**told)) is expected  # type: ignore[arg-type]


def _with_the_command_line(world: World, directory: Path) -> None:
    """``broker exec`` and ``broker request``, with the agent's own SVID, in the forms that fit."""
    facts = world.facts
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "BROKER_ADDRESS": facts.api_address,
        "BROKER_SERVER_NAME": facts.broker_dns_name,
        "SPIFFE_ENDPOINT_SOCKET": facts.endpoints[agent_id("analyst")],
        "XDG_RUNTIME_DIR": str(directory),
    }
    where = ("--account", "dev", "--environment", "dev", "--resource", "orders", "--ttl", "1m", "--intent", "look")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=False)

    done = run("exec", "--template", KUBERNETES, *where, "--deliver", "kubeconfig", "--", "sh", "-c", "cat $KUBECONFIG")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["contexts"][0]["context"]["namespace"] == "shop"
    both = 'cat "$BROKER_KEY_FILE" "$BROKER_CERTIFICATE_FILE"'
    done = run("exec", "--template", SSH, *where, "--new-key", "ssh", "--wait", "0s", "--", "sh", "-c", both)
    assert done.returncode == 0, done.stderr
    key, _, line = done.stdout.rpartition("-----\n")
    private = load_ssh_private_key(f"{key}-----\n".encode(), None)
    signed = load_ssh_public_identity(line.encode())
    assert isinstance(signed, SSHCertificate)
    assert signed.public_key() == private.public_key()
    out = directory / "x509.key"
    done = run("request", "--template", PKI, *where, "--new-key", "x509", "--key-out", str(out), "--purpose", "look")
    assert done.returncode == 0, done.stderr
    certificate = x509.load_pem_x509_certificate(out.with_name("x509.key.crt").read_bytes())
    assert load_pem_private_key(out.read_bytes(), None).public_key() == certificate.public_key()
    done = run("exec", "--template", PKI, *where, "--deliver", "pgpass", "--", "true")
    assert (done.returncode, "cannot be delivered as pgpass" in done.stderr) == (2, True), done.stderr
