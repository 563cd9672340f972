"""What an examination finds, on the real OpenBao: every doubt by making it come true."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from broker.connectors.aws_examine import doubts_of_identity
from broker.connectors.vault_database import VaultDatabase
from broker.dev.openbao import OpenBaoServer
from broker.dev.openbao_database import (
    _TOKEN_ROLE_SETTINGS,
    DEMO_ROLES,
    REVOCATION_STATEMENTS,
    _connection,
    _role,
    configure_database,
)
from broker.ports.connectors import Doubt, Severity
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import aws_connector, vault_connector, vault_settings

Words = list[tuple[Severity, str]]
ERROR, WARNING = Severity.ERROR, Severity.WARNING


TOKEN_ROLE = "auth/token/roles/jit-attempt"
CONNECTION = "database/config/orders"
READONLY = "database/roles/orders-readonly"


async def examined(bao: ConfiguredOpenBao, token: str, **settings: Any) -> Sequence[Doubt]:
    connector = VaultDatabase(
        "orders-db", replace(vault_settings(bao), **settings), lambda: Secret(token), SystemClock()
    )
    try:
        return await connector.examine()
    finally:
        await connector.close()


def assert_found(found: Sequence[Doubt], *words: tuple[Severity, str]) -> None:
    """Exactly these doubts, in this order: each by its severity and by what is in it; each with a remedy."""
    assert [each.severity for each in found] == [severity for severity, _ in words], found
    for each, (_, said) in zip(found, words, strict=True):
        assert said in each.what
        assert each.what.endswith(".")
        assert each.remedy


@pytest.fixture
def bao(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    """To be set up wrongly; it is set up right again afterwards."""
    yield openbao_server
    database = openbao_server.database
    assert database.broker_token_file is not None
    root = openbao_server.root_client()
    root.write_data("sys/mounts/database/tune", data={"max_lease_ttl": "768h"})
    root.delete(TOKEN_ROLE)  # writing one changes what is said alone
    configure_database(openbao_server.facts, database.target, token_file=database.broker_token_file)


def own_token(bao: ConfiguredOpenBao) -> str:
    return bao.database.broker_token().reveal()


def token_with(bao: ConfiguredOpenBao, policy: str, *, beside: bool = True, **how: Any) -> str:
    """A token as the recipe makes it, with one more policy, or with that alone."""
    root = bao.root_client()
    root.write_data("sys/policies/acl/examined", data={"policy": policy})
    policies = ["jit-broker", "examined"] if beside else ["examined"]
    made = root.auth.token.create_orphan(policies=policies, **{"period": "1h", "no_default_policy": True, **how})
    return str(made["auth"]["client_token"])


async def test_what_is_set_up_by_the_recipe_has_no_doubt(openbao_server: ConfiguredOpenBao) -> None:
    assert_found(await examined(openbao_server, own_token(openbao_server)))


# --------------------------------------------------------------------------- what the broker may do


async def test_a_root_token_is_told_as_that_and_in_one_line(openbao_server: ConfiguredOpenBao) -> None:
    found = await examined(openbao_server, openbao_server.facts.root_token.reveal())
    assert_found(found, (ERROR, "is a root token"))


async def test_a_token_of_another_life_is_a_warning(bao: ConfiguredOpenBao) -> None:
    root = bao.root_client()
    how = {"policies": ["jit-broker", "default"], "ttl": "1h", "renewable": False}
    token = root.auth.token.create(**how)["auth"]["client_token"]
    found = await examined(bao, token)
    assert_found(found, (WARNING, "default policy"), (WARNING, "cannot be renewed"), (WARNING, "dies with"))


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ('path "sys/policies/acl/*" { capabilities = ["update"] }', [(ERROR, "write policies")]),
        ('path "sys/policies/acl/jit-broker" { capabilities = ["update"] }', [(ERROR, "write this policy")]),
        ('path "auth/token/create" { capabilities = ["update"] }', [(ERROR, "without the token role")]),
        ('path "auth/token/roles/*" { capabilities = ["update"] }', [(ERROR, "make token roles")]),
        ('path "database/roles/*" { capabilities = ["create", "update"] }', [(ERROR, "write what logins may do")]),
        ('path "database/config/*" { capabilities = ["delete"] }', [(ERROR, "point the engine at another")]),
        ('path "database/creds/*" { capabilities = ["read"] }', [(ERROR, "logins that belong to no attempt")]),
        ('path "sys/leases/revoke-prefix/*" { capabilities = ["update", "sudo"] }', [(ERROR, "everybody's leases")]),
        ('path "sys/seal" { capabilities = ["update", "sudo"] }', [(ERROR, "seal the server")]),
        ('path "jit-other/*" { capabilities = ["read"] }', []),  # nothing is there: nobody can tell
        ('path "sys/*" { capabilities = ["update"] }', [(ERROR, "switch auditing off")]),
        (
            'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }',
            [(ERROR, "rights at every path")],
        ),
        ('path "+/*" { capabilities = ["read"] }', [(ERROR, "rights at every path")]),
    ],
)
async def test_more_than_is_declared_is_an_error(bao: ConfiguredOpenBao, policy: str, words: Words) -> None:
    found = await examined(bao, token_with(bao, policy))
    # Whoever may look everywhere sees other tests' mounts, too, which is a warning.
    assert_found([each for each in found if "also has rights in the mounts" not in each.what], *words)


async def test_a_policy_that_does_not_keep_it_to_its_own_leases_is_an_error(bao: ConfiguredOpenBao) -> None:
    policy = bao.root_client().read("sys/policies/acl/jit-broker")["data"]["policy"]
    wide = re.sub(r"allowed_parameters = .*", "", policy)
    assert wide != policy
    found = await examined(bao, token_with(bao, wide, beside=False))
    assert_found(found, (ERROR, "may look at and end leases that are not of its mount"))


async def test_rights_in_another_mount_are_a_warning(bao: ConfiguredOpenBao) -> None:
    root = bao.root_client()
    root.write_data("sys/mounts/payroll", data={"type": "kv"})
    try:
        found = await examined(bao, token_with(bao, 'path "payroll/salaries" { capabilities = ["read"] }'))
        assert_found(found, (WARNING, "mounts payroll/"))
    finally:
        root.delete("sys/mounts/payroll")


@pytest.mark.parametrize(
    ("path", "capabilities", "words"),
    [
        ("auth/token/create/jit-attempt", '"update"', "nothing can be issued"),
        ("auth/token/revoke-accessor", '"update"', "no attempt can be ended"),
        ("sys/leases/renew", '"update"', "no login gets its own end"),
        ("auth/token/renew-self", '"update"', "kept alive"),
    ],
)
async def test_a_right_that_is_missing_is_an_error_that_names_it(
    bao: ConfiguredOpenBao, path: str, capabilities: str, words: str
) -> None:
    found = await examined(bao, token_with(bao, f'path "{path}" {{ capabilities = ["deny"] }}'))
    assert_found(found, (ERROR, words))
    assert path in found[0].what


async def test_a_sweep_that_cannot_list_is_an_error_for_each_role(bao: ConfiguredOpenBao) -> None:
    denied = token_with(bao, 'path "sys/leases/lookup/database/creds/*" { capabilities = ["deny"] }')
    assert_found(
        await examined(bao, denied), *((ERROR, f"creds/{name}") for name in ("orders-readonly", "orders-readwrite"))
    )


async def test_what_the_broker_may_not_look_at_is_a_warning_with_what_to_do(bao: ConfiguredOpenBao) -> None:
    """As an installation has it that was set up before there was an examination."""
    policy = bao.root_client().read("sys/policies/acl/jit-broker")["data"]["policy"]
    before = policy.partition("# What `broker connectors doctor` looks at")[0]
    found = await examined(bao, token_with(bao, before, beside=False))
    assert {each.severity for each in found} == {WARNING}
    assert [each.what.partition(" cannot be told")[0] for each in found] == [
        "Whether its roles end what they make",
        "Whether the broker has the rights it needs, and no more",
        "Whether token role jit-attempt is set up right",
        "Whether mount database lets credentials live as long as is promised",
    ]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ('{"path": {"database/creds/orders-readonly": {"capabilities": ["read"]}}}', []),
        ('{"path": {"database/creds/+": {"capabilities": ["read"]}}}', [(ERROR, "more than to read")]),
        (None, [(ERROR, "There is no policy jit-attempt-orders-readonly")]),
        ('path "database/creds/*" { capabilities = ["read"] }', [(ERROR, "more than to read database/creds/orders-")]),
        (
            '# path "x" {}\npath "database/creds/orders-readonly" { capabilities = ["read", "update"] }',
            [(ERROR, "more than to read database/creds/orders-readonly")],
        ),
        (
            'path "database/creds/orders-readonly" { capabilities = ["read"] }\n'
            'path "database/creds/orders-readwrite" { capabilities = ["read"] }',
            [(ERROR, "more than to read database/creds/orders-readonly")],
        ),
    ],
)
async def test_what_an_attempt_may_do(bao: ConfiguredOpenBao, policy: str | None, words: Words) -> None:
    root, path = bao.root_client(), "sys/policies/acl/jit-attempt-orders-readonly"
    root.delete(path) if policy is None else root.write_data(path, data={"policy": policy})
    assert_found(await examined(bao, own_token(bao)), *words)


# --------------------------------------------------------------------------- how it is set up


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        (TOKEN_ROLE, {"orphan": False}, [(ERROR, "die with the broker's own")]),
        (TOKEN_ROLE, {"renewable": True}, [(ERROR, "renewed beyond their TTL")]),
        (TOKEN_ROLE, {"token_type": "batch", "token_explicit_max_ttl": 0}, [(ERROR, "token_type is not service")]),
        (TOKEN_ROLE, {"token_period": "1h"}, [(ERROR, "periodic")]),
        (TOKEN_ROLE, {"token_no_default_policy": False}, [(ERROR, "default policy")]),
        (TOKEN_ROLE, {"allowed_policies_glob": ["*"]}, [(ERROR, "other policies than jit-attempt-*")]),
        (TOKEN_ROLE, {"allowed_policies_glob": []}, [(ERROR, "nothing can be issued")]),
        (TOKEN_ROLE, {"token_explicit_max_ttl": "10m"}, [(WARNING, "after 600 s")]),
        (
            "sys/mounts/database/tune",
            {"max_lease_ttl": "30m"},
            [(WARNING, "Mount database ends everything after 1800 s")],
        ),
        (READONLY, {"max_ttl": "20m", "default_ttl": "20m"}, [(WARNING, "Role orders-readonly ends everything after")]),
        (
            READONLY,
            {"creation_statements": ['CREATE ROLE "{{name}}" LOGIN; -- VALID UNTIL CONNECTION LIMIT']},
            [(ERROR, "without VALID UNTIL"), (WARNING, "without CONNECTION LIMIT")],
        ),
        (
            READONLY,
            {"revocation_statements": []},
            [
                (ERROR, "open sessions"),
                (ERROR, "reconnects"),
                (ERROR, "owns something"),
                (ERROR, "locks its own role"),
                (ERROR, "run as the engine's own login"),
            ],
        ),
        (
            READONLY,
            {"revocation_statements": [REVOCATION_STATEMENTS[0].lower().replace("commit", "rollback")]},
            [(ERROR, "does not commit NOLOGIN before")],
        ),
        (
            READONLY,
            {"revocation_statements": [*REVOCATION_STATEMENTS, 'REASSIGN OWNED BY "{{name}}" TO openbao;']},
            [(ERROR, "SECURITY DEFINER")],
        ),
        (CONNECTION, {"username_template": ""}, [(ERROR, "username_template of connection orders")]),
        (
            CONNECTION,
            {"username_template": '{{ printf "%s-%s" (.DisplayName | truncate 8) (random 8) }}'},
            [(ERROR, "username_template of connection orders")],
        ),
        (CONNECTION, {"allowed_roles": ["orders-readwrite"]}, [(ERROR, "not for the roles orders-readonly")]),
        (CONNECTION, {"password_authentication": "password"}, [(WARNING, "as they are")]),
    ],
)
async def test_a_set_up_that_is_wrong(
    bao: ConfiguredOpenBao, path: str, changes: Mapping[str, object], words: Words
) -> None:
    written = {
        TOKEN_ROLE: _TOKEN_ROLE_SETTINGS,
        CONNECTION: _connection(bao.database.target, ["orders-readonly", "orders-readwrite"]),
        READONLY: _role(bao.database.target, DEMO_ROLES["orders-readonly"]),
    }.get(path, {})
    bao.root_client().write_data(path, data={**written, **changes})
    assert_found(await examined(bao, own_token(bao)), *words)


async def test_what_is_not_there_at_all_is_an_error(bao: ConfiguredOpenBao) -> None:
    root = bao.root_client()
    root.delete(TOKEN_ROLE)
    assert_found(await examined(bao, own_token(bao)), (ERROR, "no token role jit-attempt"))
    root.write_data(TOKEN_ROLE, data=_TOKEN_ROLE_SETTINGS)
    elsewhere = await examined(bao, bao.facts.root_token.reveal(), mount="nothing-here")
    assert (ERROR, True) in [(each.severity, "nothing-here is not there" in each.what) for each in elsewhere]


@pytest.mark.slow
async def test_a_server_that_is_sealed_and_one_that_is_gone(tmp_path: Path, bao: ConfiguredOpenBao) -> None:
    server = OpenBaoServer(tmp_path / "openbao")
    try:
        facts = server.start()
        token = facts.root_token.reveal()
        facts.root_client().sys.seal()
        assert_found(await examined(bao, token, address=facts.address), (ERROR, "It is sealed"))
        server.stop()
        assert_found(await examined(bao, token, address=facts.address), (ERROR, "no connection could be made"))
    finally:
        server.destroy()


# --------------------------------------------------------------------------- refused, unreachable, AWS


async def test_a_refused_token_is_an_error_that_does_not_show_it(openbao_server: ConfiguredOpenBao) -> None:
    found = await examined(openbao_server, "s.canary-token-value")
    assert [each.severity for each in found] == [Severity.ERROR]
    assert "refused" in found[0].what
    assert "canary" not in repr(found)


async def test_what_cannot_be_reached_is_an_error(openbao_server: ConfiguredOpenBao, dead_address: str) -> None:
    for connector in (vault_connector(openbao_server, dead_address), aws_connector(dead_address)):
        [found] = await connector.examine()
        assert found.severity is Severity.ERROR
        await connector.close()


async def test_one_that_is_being_replaced_is_not_asked_any_more(bao: ConfiguredOpenBao) -> None:
    before, after = vault_connector(bao), vault_connector(bao)
    await after.close()
    assert_found(await after.examine(), (WARNING, "being replaced"))
    under_way = asyncio.ensure_future(before.examine())
    await asyncio.sleep(0)  # it has begun
    await before.close()  # and is not waited for to the end
    assert_found(await under_way, (WARNING, "being replaced"))


async def test_the_double_of_aws_has_no_doubt(aws_double: str) -> None:
    connector = aws_connector(aws_double)
    assert not await connector.examine()
    await connector.close()


def test_whose_keys_the_broker_has() -> None:
    def of(answer: object) -> list[Severity]:
        return [each.severity for each in doubts_of_identity({"Arn": answer})]

    assert of("arn:aws:sts::111122223333:assumed-role/jit-broker/i-0abc") == []
    assert of("arn:aws:iam::111122223333:root") == [Severity.ERROR]
    assert of("arn:aws-cn:iam::111122223333:user/brokers/jit") == [Severity.WARNING]
    assert of(None) == of("") == of("jit") == [Severity.ERROR]
