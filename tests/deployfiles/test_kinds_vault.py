"""Connectors to Vault and OpenBao as operators write them: the way in, and the grants of each engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.ports.deploys import DeploySet
from tests.deployfiles.test_broken import HERE, private_copy
from tests.deployfiles.test_load import edit, refusals

TOKEN = "      token: file:/run/broker/vault.token\n"
JWT = "      jwt: {role: jit-broker, audience: openbao.example.org}\n"
GRANTS = {
    "vault-pki": "  role: service\n  common_name: orders.example.org\n  dns_names: [api.example.org]\n",
    "vault-ssh": "  role: hosts\n  principals: [deploy]\n  extensions: [permit-pty]\n"
    "  critical_options: {source-address: 10.0.0.0/8}\n",
    "vault-kubernetes": "  role: viewer\n  kubernetes_namespace: shop\n",
    "vault-aws-user": "  role: reports-reader\n",
    "vault-kv": "  static_accepted: true\n  path: shop/mailer\n  version: 3\n  fields: [api-key]\n",
}

# What a kind cannot be without.
SETTINGS = {
    "vault-aws-user": "      region: eu-central-1\n      canary_bucket: acme-canary\n",
    "vault-kubernetes": "      server: https://k8s.example.org:6443\n"
    '      cluster_ca: "-----BEGIN CERTIFICATE-----\\nMA==\\n-----END CERTIFICATE-----\\n"\n',
}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "set")


def of_kind(good: Path, kind: str, grant: str = "", settings: str = "") -> Path:
    """The set with this kind in place of the database, and a grant of it."""
    edit(good / "connectors.yaml", "kind: vault-database", f"kind: {kind}")
    login = "      login: {engine: postgresql, host: db.example.org, port: 5432, database: orders}\n"
    edit(good / "connectors.yaml", login, settings or SETTINGS.get(kind, ""))
    edit(good / "templates/orders.yaml", "  role: orders-readonly\n", grant or GRANTS[kind])
    return good


def settings(deploy: DeploySet) -> dict[str, object]:
    return dict(deploy.connectors["vault"].settings)


def test_the_broker_logs_in_with_its_own_jwt_svid(good: Path) -> None:
    edit(good / "connectors.yaml", TOKEN, JWT + "      namespace: teams/orders\n")
    written = settings(load(good))
    assert written["jwt"] == {"mount": "jwt", "role": "jit-broker", "audience": "openbao.example.org"}
    assert (written["token"], written["namespace"]) == (None, "teams/orders")


@pytest.mark.parametrize("ways", ["", TOKEN + JWT], ids=["none", "two"])
def test_there_is_exactly_one_way_in(good: Path, ways: str) -> None:
    edit(good / "connectors.yaml", TOKEN, ways)
    (told,) = refusals(good)
    assert told.startswith("connectors.yaml:4:")
    assert "exactly one of token and jwt" in told


@pytest.mark.parametrize(
    ("jwt", "field"),
    [
        ("{role: jit-broker}", "audience"),
        ("{audience: a}", "role"),
        ('{role: "a/b", audience: a}', "role"),
        ('{role: a, audience: "a b"}', "audience"),
        ("{role: a, audience: a, mount: ../token}", "mount"),
        ("{role: a, audience: a, token: file:/x}", "token"),
    ],
)
def test_a_login_says_what_it_must(good: Path, jwt: str, field: str) -> None:
    edit(good / "connectors.yaml", TOKEN, f"      jwt: {jwt}\n")
    assert any(f"jwt.{field}" in told for told in refusals(good))


@pytest.mark.parametrize("kind", GRANTS)
def test_each_kind_with_its_grant(good: Path, kind: str) -> None:
    deploy = load(of_kind(good, kind))
    assert deploy.connectors["vault"].kind == kind
    assert deploy.templates["orders"].connector == "vault"


def test_how_soon_the_list_is_read(good: Path) -> None:
    deploy = load(of_kind(good, "vault-pki", settings="      list_read_within: 5m\n"))
    assert settings(deploy)["list_read_within"]


@pytest.mark.parametrize(
    ("kind", "grant", "field"),
    [
        ("vault-pki", "  role: service\n", "common_name"),
        ("vault-kubernetes", "  role: viewer\n", "kubernetes_namespace"),
        ("vault-kubernetes", "  role: viewer\n  kubernetes_namespace: Shop\n", "kubernetes_namespace"),
        ("vault-pki", "  role: service\n  common_name: Orders.example.org\n", "common_name"),
        ("vault-pki", "  role: service\n  common_name: localhost\n", "common_name"),
        ("vault-pki", '  role: service\n  common_name: a.example.org\n  dns_names: ["a.org,b.org"]\n', "dns_names.0"),
        ("vault-pki", "  role: service\n  common_name: {parameter: host}\n", "common_name"),
        ("vault-ssh", "  role: hosts\n  principals: []\n", "principals"),
        ("vault-ssh", '  role: hosts\n  principals: ["*"]\n', "principals.0"),
        ("vault-ssh", "  role: hosts\n  principals: [deploy]\n  extensions: [permit-everything]\n", "extensions.0"),
        ("vault-kv", "  path: shop/mailer\n  version: 3\n  fields: [a]\n", "static_accepted"),
        ("vault-kv", "  static_accepted: false\n  path: shop\n  version: 3\n  fields: [a]\n", "static_accepted"),
        ("vault-kv", "  static_accepted: true\n  path: shop\n  fields: [a]\n", "version"),
        ("vault-kv", "  static_accepted: true\n  path: shop\n  version: 0\n  fields: [a]\n", "version"),
        ("vault-kv", "  static_accepted: true\n  path: ../sys\n  version: 1\n  fields: [a]\n", "path"),
        ("vault-kv", "  static_accepted: true\n  path: shop\n  version: 1\n  fields: []\n", "fields"),
    ],
)
def test_a_grant_that_says_too_little_or_too_much(good: Path, kind: str, grant: str, field: str) -> None:
    told = refusals(of_kind(good, kind, grant))
    assert any(each.startswith("templates/orders.yaml:") and f"grant.{field}" in each for each in told), told


def test_agents_choose_among_names_only_where_the_operator_lists_them(good: Path) -> None:
    grant = "  role: service\n  common_name: {parameter: host}\n"
    of_kind(good, "vault-pki", grant)
    orders = good / "templates/orders.yaml"
    edit(orders, "grant:\n", 'parameters:\n  host: {type: regex, pattern: "^[a-z.]+$", max_length: 64}\ngrant:\n')
    (told,) = refusals(good)
    assert "host is of type regex, and chooses the common_name" in told
    edit(orders, '{type: regex, pattern: "^[a-z.]+$", max_length: 64}', "{type: enum, values: [a.example.org, b]}")
    (told,) = refusals(good)
    assert "'b', a value of host, is no common_name" in told
    edit(orders, "values: [a.example.org, b]", "values: [a.example.org, b.example.org]")
    assert load(good).templates["orders"].grant["common_name"] == {"parameter": "host"}
