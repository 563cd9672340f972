"""Kind ``postgresql``: the example set is a good one, and every way to get a grant or its settings wrong is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.files import Problems

EXAMPLE = Path(__file__).parents[2] / "deploy" / "postgresql" / "set"
CONNECTORS, CHANGE, READ = "connectors.yaml", "templates/orders-change.yaml", "templates/orders-read.yaml"


def test_the_example_is_a_good_set() -> None:
    deploy = load(EXAMPLE)
    assert {name: spec.kind for name, spec in deploy.connectors.items()} == {"shop": "postgresql"}
    assert deploy.templates["orders-read"].grant == {"grants": [{"roles": ["orders_reader"]}], "connections": 5}
    assert deploy.templates["orders-change"].grant == {
        "grants": [
            {"in_schema": "public", "tables": [{"parameter": "table"}], "privileges": ["select", "insert", "update"]},
            {"schemas": ["scratch"], "privileges": ["usage", "create"]},
        ],
        "connections": 2,
    }


@pytest.mark.parametrize(
    ("file", "before", "after", "field", "told"),
    [
        (CONNECTORS, "password: file:/etc", "password: file:etc", "password", "absolute path"),
        (
            CONNECTORS,
            "password: file:/etc/jit-broker/shop.password",
            "password: secret",
            "password",
            "must be a reference",
        ),
        (CONNECTORS, "username: jit_broker", "username: jit_broker\n      tls: false", "settings", "only for loopback"),
        (CONNECTORS, "login_prefix: jit-", "login_prefix: a-prefix-too-long", "login_prefix", "must match"),
        (CONNECTORS, "port: 5432", "port: 0", "login.port", "must be a port"),
        (READ, "roles: [orders_reader]", "roles: [pg_read_all_data]", "roles.0", "must not be a predefined role"),
        (READ, "roles: [orders_reader]", "roles: []", "roles", "at least 1 item"),
        (READ, "roles: [orders_reader]", "members: [orders_reader]", "grants.0", "must grant one of tables"),
        (READ, "roles: [orders_reader]", "roles: [{parameter: x}]", "roles.0", "must be a text"),
        (CHANGE, "privileges: [select, insert, update]", "privileges: [trigger]", "privileges.0", "must be 'select'"),
        (CHANGE, "privileges: [select, insert, update]", 'privileges: ["*"]', "privileges.0", "must be 'select'"),
        (CHANGE, "in_schema: public", 'in_schema: "pub\\nlic"', "in_schema", "printable"),
        (CHANGE, "in_schema: public", f"in_schema: {'é' * 32}", "in_schema", "at most 63 bytes"),
        (CHANGE, "      tables: [{parameter: table}]\n", "", "grants.0", "must grant one of tables"),
        (CHANGE, "{parameter: table}", "{parameter: teble}", "tables.0", "is not a parameter of this template"),
        (
            CHANGE,
            "table: {type: enum, values: [orders]}",
            "table: {type: regex, pattern: '^[a-z]+$', max_length: 9}",
            "tables.0",
            "table is of type regex, and chooses what is granted",
        ),
        (CHANGE, "connections: 2", "connections: 0", "connections", "greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, file: str, before: str, after: str, field: str, told: str
) -> None:
    broken = tmp_path / "set"
    shutil.copytree(EXAMPLE, broken)
    text = (broken / file).read_text()
    assert before in text
    (broken / file).write_text(text.replace(before, after))
    with pytest.raises(Problems) as caught:
        load(broken)
    assert [each for each in caught.value.problems if field in str(each) and told in str(each)], caught.value.problems
