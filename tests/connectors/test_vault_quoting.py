"""Names that would be SQL: they reach no statement, neither the one that makes a login nor the ones that end it."""

from __future__ import annotations

import re

import psycopg
import pytest

from broker.clock import SystemClock
from broker.dev.postgres import PostgresFacts
from broker.errors import InvalidInput
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import vault_connector
from tests.connectors.support import HOLDER, make_scope

HOSTILE = [
    'x"; DROP TABLE orders; --',
    "x'; DROP TABLE orders; --",
    'x" SUPERUSER; --',
    "x$$; DROP TABLE orders; $$",
    "$1 $body$ BEGIN DROP TABLE orders; END $body$",
    "x'' || pg_sleep(10) || ''",
    "x\\'; DROP TABLE orders; --",
    "{{name}}{{password}}",
    "x\n; DROP TABLE orders; /*",
    "x\x00y",
    "ｘ＂; DROP TABLE orders",
    "postgres",
    "a" * 300,
]


@pytest.mark.parametrize("name", HOSTILE)
async def test_the_connector_takes_no_such_name(openbao_server: ConfiguredOpenBao, name: str) -> None:
    connector = vault_connector(openbao_server)
    expires_at = SystemClock().now()
    if not re.fullmatch(r"[A-Za-z0-9-]{1,48}", name):
        with pytest.raises(InvalidInput):
            connector.prepare(make_scope({"role": "orders-readonly"}), name, HOLDER, expires_at)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        with pytest.raises(InvalidInput):
            connector.prepare(make_scope({"role": name}), "jb-1", HOLDER, expires_at)
    await connector.close()


@pytest.mark.parametrize("name", [each for each in HOSTILE if "\x00" not in each])
def test_the_statements_hold_where_the_name_of_a_token_is_hostile(
    openbao_server: ConfiguredOpenBao, postgres_server: PostgresFacts, name: str
) -> None:
    """Past the connector: a token of that display name, made by an administrator, reads a login and is ended."""
    root = openbao_server.root_client()
    database = openbao_server.database.target.database
    with psycopg.connect(postgres_server.conninfo(database), autocommit=True) as admin:

        def roles() -> set[tuple[str, bool]]:
            return set(admin.execute("SELECT rolname, rolsuper FROM pg_roles").fetchall())  # type: ignore[arg-type]

        before, orders = roles(), admin.execute("SELECT count(*) FROM orders").fetchone()
        made = root.auth.token.create(
            display_name=name, policies=["jit-attempt-orders-readonly"], ttl="1m", no_default_policy=True
        )["auth"]
        reader = openbao_server.root_client()
        reader.token = made["client_token"]
        login = reader.secrets.database.generate_credentials("orders-readonly")
        ((username, rules),) = roles() - before
        assert username == login["data"]["username"]
        assert re.fullmatch(r"[A-Za-z0-9{}_-]{1,63}", username)
        assert not rules
        root.sys.revoke_lease(login["lease_id"])
        root.auth.token.revoke_accessor(made["accessor"])
        assert roles() == before
        assert admin.execute("SELECT count(*) FROM orders").fetchone() == orders
