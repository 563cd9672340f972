"""The engine as an operator sets it up, the account behind it, and a connector that has both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3

from broker.clock import SystemClock
from broker.connectors.aws_use import list_bucket
from broker.connectors.vault_aws_user import VaultAwsUser, VaultAwsUserSettings
from broker.dev.openbao import OpenBaoFacts
from broker.dev.openbao_database import TOKEN_ROLE
from broker.lease.credential import AwsAccessKey, Credential
from broker.ports.connectors import Use
from broker.scope.model import Scope
from broker.secret import Secret
from tests.connectors.harness import Harness
from tests.connectors.misbehaving import behind_proxy, lying_vault
from tests.connectors.mishap_proxy import Reply
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_attempts, broker_token, mounted
from tests.patience import PATIENCE

MOUNT, ROLE, BUCKET, REGION = "aws", "reports-reader", "acme-canary", "us-east-1"
NAMES = '{{ printf "%s-%s" (.DisplayName | truncate 55) (random 8) }}'
_MAY_LIST = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{BUCKET}"}
READS = {"Version": "2012-10-17", "Statement": [_MAY_LIST]}
RULES = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@dataclass(frozen=True)
class Account:
    """Where it is, and the key of the engine's own user."""

    address: str
    key_id: str
    secret: Secret

    def client(self, service: str) -> Any:
        """Of the engine's own user."""
        return _client(service, self.address, self.key_id, self.secret.reveal())

    def users(self) -> set[str]:
        """All but the engine's own."""
        return {each["UserName"] for each in self.client("iam").list_users()["Users"]} - {"engine"}


def fresh_account(address: str) -> Account:
    """While nobody is asked for a key yet."""
    iam = _client("iam", address, "nobody", "nothing")
    iam.create_user(UserName="engine")
    iam.put_user_policy(UserName="engine", PolicyName="all", PolicyDocument=json.dumps(RULES))
    key = iam.create_access_key(UserName="engine")["AccessKey"]
    _client("s3", address, "nobody", "nothing").create_bucket(Bucket=BUCKET)
    return Account(address, key["AccessKeyId"], Secret(key["SecretAccessKey"]))


def configure_engine(bao: OpenBaoFacts, account: Account) -> None:
    """Mount, root key, role, token role, policies: the recipe of the connector's page."""
    root = bao.root_client()
    mounted(root, MOUNT, "aws")
    at = {"region": REGION, "iam_endpoint": account.address, "sts_endpoint": account.address}
    keys = {"access_key": account.key_id, "secret_key": account.secret.reveal(), "username_template": NAMES}
    root.write_data(f"{MOUNT}/config/root", data={**at, **keys})
    role = {"credential_type": "iam_user", "policy_document": json.dumps(READS)}
    root.write_data(f"{MOUNT}/roles/{ROLE}", data=role)
    allow_attempts(root, ROLE, f'path "{MOUNT}/creds/{ROLE}" {{ capabilities = ["read"] }}')
    orphans = {"orphan": True, "renewable": False, "token_no_default_policy": True, "token_type": "service"}
    lives = {"allowed_policies_glob": ["jit-attempt-*"], "token_explicit_max_ttl": "1h"}
    root.write_data(f"auth/token/roles/{TOKEN_ROLE}", data={**orphans, **lives})


def engine_scope() -> Scope:
    return make_scope({"role": ROLE})


def engine_connector(
    bao: OpenBaoFacts, account: Account, address: str | None = None, timeout: float = PATIENCE
) -> VaultAwsUser:
    settings = VaultAwsUserSettings(
        address or bao.address,
        REGION,
        MOUNT,
        canary_bucket=BUCKET,
        canary_endpoint_url=account.address,
        timeout=timeout,
        threads=4,
    )
    token = broker_token(bao.root_client())
    return VaultAwsUser("aws-users", settings, lambda: token, SystemClock())


def engine_harness(bao: OpenBaoFacts, account: Account, dead_address: str) -> Harness:
    """Whether a key works is what S3 says of it, not what IAM lists."""
    return Harness(
        clock=SystemClock(),
        make=lambda: engine_connector(bao, account),
        make_unreachable=lambda: engine_connector(bao, account, dead_address),
        scope=engine_scope(),
        works=lambda credential: works(account, credential),
        misbehaving=behind_proxy(
            bao.address,
            lambda address, timeout: engine_connector(bao, account, address, timeout),
            lambda status: Reply(status, json.dumps({"errors": ["no"]}).encode()),
        ),
        lying=lying_vault(bao.address, lambda address, timeout: engine_connector(bao, account, address, timeout)),
    )


def works(account: Account, credential: Credential) -> bool:
    """Whether the bucket can be listed with it."""
    assert isinstance(credential, AwsAccessKey)
    used = list_bucket("aws-users", credential, BUCKET, endpoint_url=account.address, timeout=PATIENCE)
    return used is Use.WORKS


def _client(service: str, address: str, key_id: str, secret: str) -> Any:
    return boto3.client(
        service, endpoint_url=address, region_name=REGION, aws_access_key_id=key_id, aws_secret_access_key=secret
    )
