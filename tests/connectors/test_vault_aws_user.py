"""Access keys of IAM users, leased by a real OpenBao; engine and IAM are doubles (``harness_vault_aws_user.py``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from broker.clock import SystemClock
from broker.connectors.vault_aws_user import VaultAwsUser
from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import AwsAccessKey
from broker.ports.connectors import Issued, NotYet, Revoked
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_aws_user import MOUNT, Users, aws_user_connector, aws_user_scope, configure_aws_user
from tests.connectors.mishap_proxy import Reply, Rule, mishap_proxy
from tests.connectors.support import HOLDER, Ledger, new_attempt

TTL = timedelta(minutes=1)


async def issue(connector: VaultAwsUser, ledger: Ledger) -> Issued:
    expires_at, scope = SystemClock().now() + TTL, aws_user_scope()
    ledger.handle = connector.prepare(scope, new_attempt(), HOLDER, expires_at, task_id="task-1")
    return await ledger.issued(connector.issue(ledger.handle, scope, expires_at, ledger.checkpoint))


def answering(**changes: object) -> Callable[[Reply], Reply]:
    """The engine's answer with this in its data, or in itself where it is a lease's."""

    def change(reply: Reply) -> Reply:
        answer = json.loads(reply.body)
        for name, value in changes.items():
            (answer if name.startswith("lease_") else answer["data"])[name] = value
        return Reply(reply.status, json.dumps(answer).encode(), reply.headers)

    return change


async def test_its_user_is_its_own_and_goes_with_it(openbao_server: ConfiguredOpenBao, users: Users) -> None:
    configure_aws_user(openbao_server, users)
    connector, ledger, other = aws_user_connector(openbao_server, users.front), Ledger(), Ledger()
    issued, kept = await issue(connector, ledger), await issue(connector, other)
    key, second = issued.credential, kept.credential
    assert isinstance(key, AwsAccessKey)
    assert isinstance(second, AwsAccessKey)
    assert issued.observed["access_key_id"] == key.access_key_id
    assert key.region == "eu-central-1"
    assert any(str(ledger.handle["attempt"]) in name for name in users.names)
    token = openbao_server.root_client().auth.token.lookup_accessor(str(ledger.handle["accessor"]))
    assert token["data"]["meta"] == {"attempt": ledger.handle["attempt"], "holder": HOLDER, "task": "task-1"}
    assert users.take(key)
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    assert not users.take(key)
    assert users.take(second)
    assert isinstance(await connector.revoke(other.handle, other.context()), Revoked)
    await connector.close()


@pytest.mark.parametrize(
    "session",
    [
        {"access_key": "ASIAIOSFODNN7EXAMPLE", "security_token": "token"},
        {"access_key": "AKIAIOSFODNN7EXAMPLE", "security_token": "token"},
        {"access_key": "AKIAIOSFODNN7EXAMPLE", "session_token": "token"},
        {"access_key": "ASIAIOSFODNN7EXAMPLE", "security_token": None},
    ],
    ids=["a session", "by its token", "by its newer name", "by its key"],
)
async def test_a_session_is_refused_and_never_said_to_be_over_before_its_time(
    openbao_server: ConfiguredOpenBao, users: Users, session: dict[str, object]
) -> None:
    configure_aws_user(openbao_server, users)
    with mishap_proxy(users.front) as (proxy, address):
        proxy.rules.append(Rule(f"GET /v1/{MOUNT}/creds/", change=answering(**session, lease_duration=900)))
        connector, ledger = aws_user_connector(openbao_server, address), Ledger()
        with pytest.raises(UpstreamFailed) as refused:
            await issue(connector, ledger)
        assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
        assert isinstance(await connector.revoke(ledger.handle, ledger.context()), NotYet)
        late = ledger.context(SystemClock().now() + timedelta(minutes=16))
        assert isinstance(await connector.revoke(ledger.handle, late), Revoked)
        await connector.close()


@pytest.mark.parametrize("missing", ["access_key", "secret_key"])
async def test_half_a_key_is_delivered_to_nobody_and_ends(
    openbao_server: ConfiguredOpenBao, users: Users, missing: str
) -> None:
    configure_aws_user(openbao_server, users)
    before = set(users.names)
    with mishap_proxy(users.front) as (proxy, address):
        proxy.rules.append(Rule(f"GET /v1/{MOUNT}/creds/", change=answering(**{missing: ""})))
        connector, ledger = aws_user_connector(openbao_server, address), Ledger()
        with pytest.raises(UpstreamFailed) as failed:
            await issue(connector, ledger)
        assert not failed.value.outcome_known
        assert len(users.names - before) == 1  # it was made
        now = SystemClock().now()
        past = ledger.context(now + timedelta(minutes=10), created_at=now, expires_at=now + timedelta(hours=1))
        # Its token was alive until this try, so the next one looks once more.
        assert isinstance(ledger.kept(await connector.revoke(ledger.handle, past)), NotYet)
        assert users.names == before
        assert isinstance(await connector.revoke(ledger.handle, past), Revoked)
        await connector.close()


async def test_the_recipe_has_no_doubt(openbao_server: ConfiguredOpenBao, users: Users) -> None:
    configure_aws_user(openbao_server, users)
    connector = aws_user_connector(openbao_server, users.front)
    assert await connector.examine() == []
    await connector.close()


async def test_who_can_change_the_engine_is_told_so(openbao_server: ConfiguredOpenBao, users: Users) -> None:
    configure_aws_user(openbao_server, users)
    connector = aws_user_connector(openbao_server, users.front)
    wide = f'path "{MOUNT}/config/root" {{ capabilities = ["update"] }}'
    root = openbao_server.root_client()
    name = "jit-broker-engines"
    policy = root.read(f"sys/policies/acl/{name}")["data"]["policy"]
    root.write_data(f"sys/policies/acl/{name}", data={"policy": f"{policy}\n{wide}"})
    try:
        told = [doubt.what for doubt in await connector.examine()]
    finally:
        root.write_data(f"sys/policies/acl/{name}", data={"policy": policy})
    assert any("lead the engine to another account" in each for each in told), told
    await connector.close()
