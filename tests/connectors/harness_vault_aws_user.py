"""The AWS engine as the contract suite drives it: a double of the engine and of IAM, leased by the test's real OpenBao.

The engine is not among OpenBao's own. So its RabbitMQ engine stands in, mounted where the AWS engine would be: it makes
a user for each lease over HTTP and deletes it at the end, too. A proxy in front of OpenBao puts its answer into the
documented form of the AWS engine's. Tokens, leases and their ends are real; what the real engine does to IAM is shown
in ``integration/vault_aws``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from broker.clock import SystemClock
from broker.connectors.vault_aws_user import VaultAwsUser, VaultAwsUserSettings
from broker.lease.credential import AwsAccessKey, Credential
from broker.scope.model import Scope
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import Harness
from tests.connectors.misbehaving import behind_proxy, lying_vault
from tests.connectors.mishap_proxy import MishapProxy, Reply, Rule, mishap_proxy
from tests.connectors.support import make_scope
from tests.connectors.vault_mount import allow_attempts, broker_token, mounted
from tests.patience import PATIENCE

MOUNT = "aws"
ROLE = "reports-reader"
NAMES = '{{ printf "%s-%s" (.DisplayName | truncate 55) (random 8) }}'


@dataclass
class Users:
    """The users there are. ``address``: of the double; ``front``: of OpenBao with the engine's answers."""

    address: str = ""
    front: str = ""
    proxy: MishapProxy | None = None
    names: set[str] = field(default_factory=set)

    def take(self, key: AwsAccessKey) -> bool:
        """Whether the key is one of a user that is there."""
        return key.access_key_id in map(key_id, self.names)


def key_id(user: str) -> str:
    """The id of a user's only key."""
    return "AKIA" + hashlib.sha256(user.encode()).hexdigest()[:16].upper()


@contextmanager
def aws_users(openbao: str) -> Iterator[Users]:
    """The double of engine and IAM, running, in front of ``openbao``."""
    users = Users()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Management,), {"users": users}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        with mishap_proxy(openbao) as (proxy, front):
            proxy.rules.append(Rule(f"GET /v1/{MOUNT}/creds/", change=_in_its_form))
            users.address, users.front, users.proxy = f"http://127.0.0.1:{server.server_address[1]}", front, proxy
            yield users
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def aws_user_scope(**changes: object) -> Scope:
    return make_scope({"role": ROLE, **changes})


def configure_aws_user(bao: ConfiguredOpenBao, users: Users) -> None:
    """The engine, its role, and what the broker may do there."""
    root = bao.root_client()
    mounted(root, MOUNT, "rabbitmq")
    at = {"connection_uri": users.address, "username": "root", "password": "root", "verify_connection": False}
    root.write_data(f"{MOUNT}/config/connection", data={**at, "username_template": NAMES})
    root.write_data(f"{MOUNT}/roles/{ROLE}", data={"tags": "monitoring"})
    allow_attempts(root, ROLE, f'path "{MOUNT}/creds/{ROLE}" {{ capabilities = ["read"] }}')


def aws_user_connector(bao: ConfiguredOpenBao, address: str, timeout: float = PATIENCE) -> VaultAwsUser:
    settings = VaultAwsUserSettings(address, "eu-central-1", MOUNT, timeout=timeout, threads=4)
    token = broker_token(bao.root_client())
    return VaultAwsUser("aws-users", settings, lambda: token, SystemClock())


def aws_user_harness(bao: ConfiguredOpenBao, users: Users, dead_address: str) -> Harness:
    configure_aws_user(bao, users)

    def taken(credential: Credential) -> bool:
        assert isinstance(credential, AwsAccessKey)
        return users.take(credential)

    def at(address: str, timeout: float) -> VaultAwsUser:
        return aws_user_connector(bao, address, timeout)

    return Harness(
        clock=SystemClock(),
        make=lambda: aws_user_connector(bao, users.front),
        make_unreachable=lambda: aws_user_connector(bao, dead_address),
        scope=aws_user_scope(),
        works=taken,
        misbehaving=behind_proxy(
            users.front,
            at,
            lambda status: Reply(status, json.dumps({"errors": ["no"]}).encode()),
        ),
        lying=lying_vault(users.front, at),
    )


def _in_its_form(reply: Reply) -> Reply:
    """As the AWS engine answers (API documentation, "Generate credentials")."""
    if reply.status != 200:
        return reply
    answer = json.loads(reply.body)
    user, password = answer["data"]["username"], answer["data"]["password"]
    answer["data"] = {"access_key": key_id(user), "secret_key": password, "security_token": None}
    return Reply(reply.status, json.dumps(answer).encode(), reply.headers)


class _Management(BaseHTTPRequestHandler):
    """As much of RabbitMQ's management API as the engine calls."""

    users: ClassVar[Users]
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.users.names.add(self._user())
        self._answer(201)

    def do_DELETE(self) -> None:
        there = self._user() in self.users.names
        self.users.names.discard(self._user())
        self._answer(204 if there else 404)

    def _user(self) -> str:
        prefix, _, user = self.path.rpartition("/")
        assert prefix == "/api/users"
        return user

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        return
