"""What the engine does to IAM for a lease, as S3 sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import boto3
import pytest
from botocore.exceptions import ClientError

from broker.clock import SystemClock
from broker.connectors.vault_aws_user import VaultAwsUser
from broker.dev.openbao import OpenBaoFacts
from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import AwsAccessKey
from broker.ports.connectors import Issued, NotYet, Revoked, Use
from integration.vault_aws.engine import BUCKET, MOUNT, REGION, ROLE, Account, configure_engine, engine_connector
from integration.vault_aws.engine import engine_scope as scope
from tests.connectors.support import HOLDER, Ledger, new_attempt

TTL = timedelta(minutes=1)


@pytest.fixture
async def connector(bao: OpenBaoFacts, account: Account) -> AsyncIterator[VaultAwsUser]:
    made = engine_connector(bao, account)
    yield made
    await made.close()


async def issue(connector: VaultAwsUser, ledger: Ledger, ttl: timedelta = TTL) -> Issued:
    expires_at = SystemClock().now() + ttl
    ledger.handle = connector.prepare(scope(), new_attempt(), HOLDER, expires_at)
    return await ledger.issued(connector.issue(ledger.handle, scope(), expires_at, ledger.checkpoint))


async def test_the_user_carries_the_attempt_and_has_the_roles_policy_alone(
    connector: VaultAwsUser, account: Account
) -> None:
    ledger, before = Ledger(), account.users()
    issued = await issue(connector, ledger)
    (user,) = account.users() - before
    assert str(ledger.handle["attempt"]) in user
    key = issued.credential
    assert isinstance(key, AwsAccessKey)
    s3 = boto3.client(
        "s3",
        endpoint_url=account.address,
        region_name=REGION,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key.reveal(),
    )
    s3.list_objects_v2(Bucket=BUCKET)
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.create_bucket(Bucket="another")
    assert isinstance(await connector.revoke(ledger.handle, ledger.context()), Revoked)
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        s3.list_objects_v2(Bucket=BUCKET)
    assert account.users() == before


async def test_a_key_that_nobody_revokes_goes_with_its_token(connector: VaultAwsUser, account: Account) -> None:
    """With the broker dead, as far as OpenBao can tell: nobody asks it for anything."""
    issued = await issue(connector, Ledger(), timedelta(seconds=2))
    used = Use.WORKS
    while used is Use.WORKS:  # each is a request; OpenBao ends it in a second or two
        used = await connector.use(issued.credential, scope())
    assert used is Use.REFUSED
    assert SystemClock().now() >= issued.expires_at - timedelta(seconds=1)


async def test_a_role_that_gives_sessions_is_refused(
    connector: VaultAwsUser, bao: OpenBaoFacts, account: Account
) -> None:
    root, ledger = bao.root_client(), Ledger()
    root.delete(f"{MOUNT}/roles/{ROLE}")
    arn = "arn:aws:iam::123456789012:role/reader"
    root.write_data(f"{MOUNT}/roles/{ROLE}", data={"credential_type": "assumed_role", "role_arns": [arn]})
    try:
        with pytest.raises(UpstreamFailed) as refused:
            await issue(connector, ledger)
        assert refused.value.reason is Reason.UPSTREAM_GRANT_MISMATCH
        assert isinstance(await connector.revoke(ledger.handle, ledger.context()), NotYet)
        late = ledger.context(SystemClock().now() + timedelta(hours=2))
        assert isinstance(await connector.revoke(ledger.handle, late), Revoked)
    finally:
        root.delete(f"{MOUNT}/roles/{ROLE}")
        configure_engine(bao, account)


async def test_the_recipe_has_no_doubt(connector: VaultAwsUser) -> None:
    assert await connector.examine() == []
