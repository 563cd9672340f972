"""One way to drive each adapter, so that one suite proves the port on all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta

import psycopg

from broker.clock import SystemClock
from broker.connectors.aws_client import AwsKeys
from broker.connectors.aws_contract import AwsStsSettings
from broker.connectors.aws_sts import AwsSts
from broker.connectors.vault_database import VaultDatabase, VaultDatabaseSettings
from broker.lease.credential import Credential, DatabaseLogin
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.fake import FakeConnector
from tests.connectors.misbehaving import Lying, Misbehaving, behind_proxy, lying_vault, playing, vault_refusal
from tests.connectors.mishap_proxy import Reply
from tests.connectors.support import make_scope
from tests.patience import PATIENCE

ROLE_NAME = "orders-reader"
# The case of an upstream that lies, and why some have none.
LIE = "test_a_revocation_that_is_a_lie_is_no_proof"
# The cases of an upstream that misbehaves in everything it is asked.
MISHAPS = (
    "test_an_issue_that_is_not_answered_is_a_failure_and_leaves_nothing",
    "test_a_revocation_that_is_not_answered_is_no_proof",
    "test_an_inventory_that_is_not_answered_is_not_empty",
)
# The cases of the list of what was given out.
NO_LIST = dict.fromkeys(
    (
        "test_what_is_issued_is_in_the_inventory_and_what_is_revoked_is_not",
        "test_the_handle_of_the_inventory_ends_it_without_a_ledger",
        "test_an_inventory_that_is_not_answered_is_not_empty",
    ),
    "this upstream cannot tell what it has given out",
)
TIME_ALONE = "only time ends it: no end is ordered, so no answer can lie about one"


@dataclass
class Harness:
    """A running upstream, connectors to it, and a way to try a credential."""

    clock: Clock
    make: Callable[[], Connector]  # another connector to the same upstream, as after a restart
    make_unreachable: Callable[[], Connector] | None  # one whose upstream cannot be reached
    scope: Scope
    # Whether the upstream takes the credential; None where it cannot be asked (moto enforces nothing).
    works: Callable[[Credential], bool] | None
    # How much sooner than asked it may end; a certificate's own times are whole seconds, too.
    short_by: timedelta = timedelta(seconds=1)
    ends_when_asked: bool = False  # BY_POLICY, and proven as soon as it is asked
    notes_last: bool = False  # after its note nothing is left to do: it is cancelled while its only call is under way
    secrets: tuple[str, ...] = ()  # the broker's own, as the connector holds them
    misbehaving: Misbehaving | None = None  # None: said in ``cannot``
    lying: Lying | None = None  # None: said in ``cannot``
    # STATIC: what operators do, after which it has ended.
    rotate: Callable[[], None] | None = None
    # Cases of the contract suite that cannot apply, and why, in one line: by the test's name, or ``name[MISHAP]``.
    cannot: Mapping[str, str] = field(default_factory=dict)
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def connector(self) -> Connector:
        """A connector that is closed when the test ends."""
        made = self.make()
        self.stack.push_async_callback(made.close)
        return made


def vault_settings(
    bao: ConfiguredOpenBao, address: str | None = None, timeout: float = PATIENCE
) -> VaultDatabaseSettings:
    """Settings for the test's OpenBao, or for something else at ``address``."""
    target = bao.database.target
    return VaultDatabaseSettings(
        address=address or bao.facts.address,
        mount=bao.database.mount,
        engine="postgresql",
        host=target.host,
        port=target.port,
        database=target.database,
        timeout=timeout,
        threads=4,
    )


def vault_connector(bao: ConfiguredOpenBao, address: str | None = None) -> VaultDatabase:
    return VaultDatabase("orders-db", vault_settings(bao, address), bao.database.broker_token, SystemClock())


def vault_harness(bao: ConfiguredOpenBao, dead_address: str) -> Harness:
    def at(address: str, timeout: float) -> VaultDatabase:
        settings = vault_settings(bao, address, timeout)
        return VaultDatabase("orders-db", settings, bao.database.broker_token, SystemClock())

    return Harness(
        clock=SystemClock(),
        make=lambda: vault_connector(bao),
        make_unreachable=lambda: vault_connector(bao, dead_address),
        scope=make_scope({"role": "orders-readonly"}),
        works=can_log_in,
        secrets=(bao.database.broker_token().reveal(),),
        misbehaving=behind_proxy(bao.facts.address, at, vault_refusal),
        lying=lying_vault(bao.facts.address, at),
    )


def aws_connector(endpoint: str, **settings: object) -> AwsSts:
    keys = AwsKeys(lambda: Secret("AKIAEXAMPLE"), lambda: Secret("secret-of-the-broker"))
    options = {"region": "eu-central-1", "endpoint_url": endpoint, "timeout": PATIENCE, "threads": 4, **settings}
    return AwsSts("aws", AwsStsSettings(**options), keys, SystemClock())  # type: ignore[arg-type]


def aws_harness(double: str, dead_address: str) -> Harness:
    return Harness(
        clock=SystemClock(),
        make=lambda: aws_connector(double),
        make_unreachable=lambda: aws_connector(dead_address),
        scope=make_scope(aws_grant(), parameters={"prefix": "2031/05"}),
        works=None,
        secrets=("secret-of-the-broker",),
        misbehaving=behind_proxy(
            double, lambda address, timeout: aws_connector(address, timeout=timeout), _aws_refusal
        ),
        cannot={**NO_LIST, LIE: TIME_ALONE},
    )


def _aws_refusal(status: int) -> Reply:
    """STS speaks XML; a code says what it is."""
    code = {403: "InvalidClientTokenId", 429: "Throttling"}.get(status, "InternalFailure")
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"
    return Reply(status, body.encode(), {"Content-Type": "text/xml"})


def aws_grant() -> dict[str, JsonValue]:
    return {
        "role_name": ROLE_NAME,
        "policy": [
            {
                "sid": "Read",
                "actions": ["s3:GetObject"],
                "resources": [[{"text": "arn:aws:s3:::orders/"}, {"parameter": "prefix"}, {"text": "/*"}]],
                "conditions": None,
            }
        ],
    }


def fake_harness() -> Harness:
    clock = SystemClock()
    upstream = FakeConnector(clock)

    def works(credential: Credential) -> bool:
        assert isinstance(credential, DatabaseLogin)
        return upstream.usable(credential.username.removeprefix("login-"), clock.now())

    return Harness(
        clock=clock,
        make=lambda: upstream,
        make_unreachable=None,
        scope=make_scope({}),
        works=works,
        misbehaving=playing(upstream),
        cannot={
            "test_an_upstream_that_cannot_be_reached_made_nothing": "it is in memory",
            LIE: "it is adapter and upstream in one: what it says is what is kept",
        },
    )


def conninfo(login: DatabaseLogin) -> str:
    return psycopg.conninfo.make_conninfo(
        host=login.host,
        port=login.port,
        dbname=login.database,
        user=login.username,
        password=login.password.reveal(),
        connect_timeout=int(PATIENCE),
    )


def can_log_in(credential: Credential) -> bool:
    """Whether PostgreSQL lets it in, and it can read what it was made for."""
    assert isinstance(credential, DatabaseLogin)
    try:
        with psycopg.connect(conninfo(credential)) as session:
            session.execute("SELECT count(*) FROM orders")
            return True
    except psycopg.OperationalError:
        return False
