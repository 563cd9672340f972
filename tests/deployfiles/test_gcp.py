"""Connectors and templates of Google Cloud in deploy files: what is right, and what is wrong, with its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.clock import SystemClock
from broker.connectors.gcp_pool import GcpPool
from broker.connectors.gcp_token import GcpTokens
from broker.connectors.lending import Lending
from broker.connectors.registry import build
from broker.deployfiles import load
from broker.files import Problems
from broker.secret import Secret
from tests.connectors.harness_gcp import AUDIENCE, READ_ONLY, READER, Allocations

GOOD = Path(__file__).parent / "good"
VIEWER = "roles/storage.objectViewer"


class Plain(yaml.SafeDumper):
    """Without anchors: operators' files have none."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def connectors() -> dict[str, Any]:
    return {
        "tokens": {
            "kind": "gcp-token",
            "settings": {"credentials": {"federation": {"audience": AUDIENCE}}, "service_accounts": [READER]},
        },
        "pools": {
            "kind": "gcp-pool",
            "settings": {
                "credentials": {"key": "file:/run/broker/gcp.json"},
                "project": "acme-data",
                "pools": {"orders": {"prefix": "orders-", "size": 20, "buckets": ["orders-exports"]}},
            },
        },
    }


def template(connector: str, grant: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"of-{connector}",
        "description": "Reads exports.",
        "connector": connector,
        "accounts": ["acme-data"],
        "environments": ["dev"],
        "resource": {"type": "enum", "values": ["exports"]},
        "access": "read",
        "actions": ["read"],
        "max_ttl": "15m",
        "parameters": {
            "day": {"type": "regex", "pattern": "^[0-9]{4}-[0-9]{2}$", "max_length": 7},
            "free": {"type": "enum", "values": ["it's"]},
        },
        "grant": grant,
    }


def rule(**changes: Any) -> dict[str, Any]:
    return {"bucket": "orders-exports", "roles": [VIEWER], "below": [{"parameter": "day"}, "/"], **changes}


def token_grant(**changes: Any) -> dict[str, Any]:
    return {"service_account": "orders-reader", "scopes": [READ_ONLY], "boundary": [rule()], **changes}


def written(tmp_path: Path, entries: dict[str, Any], **templates: dict[str, Any]) -> Path:
    """The good set, with these connectors beside its own, and these templates."""
    place = tmp_path / "set"
    shutil.copytree(GOOD, place)
    own = yaml.safe_load((place / "connectors.yaml").read_text())
    (place / "connectors.yaml").write_text(yaml.dump({"connectors": {**own["connectors"], **entries}}, Dumper=Plain))
    for name, each in templates.items():
        (place / "templates" / f"{name}.yaml").write_text(yaml.dump(each, Dumper=Plain, sort_keys=False))
    return place


async def test_what_is_right_is_loaded_and_built(tmp_path: Path) -> None:
    pool_grant = {"pool": "orders", "scopes": [READ_ONLY]}
    entries = connectors()
    place = written(
        tmp_path,
        entries,
        tokens=template("tokens", token_grant()),
        pools=template("pools", pool_grant),
    )
    deploy = load(place)
    assert deploy.templates["of-tokens"].grant["boundary"][0]["below"] == [{"parameter": "day"}, {"text": "/"}]  # type: ignore[index,call-overload]
    lending = Lending("t", Allocations())  # type: ignore[arg-type]
    made = [
        build(deploy.connectors[name], lambda reference: Secret("{}"), SystemClock(), lending=lending)
        for name in ("tokens", "pools")
    ]
    assert isinstance(made[0], GcpTokens)
    assert isinstance(made[1], GcpPool)
    for each in made:
        await each.close()


def refused(place: Path) -> list[tuple[str, str]]:
    """(file and field, message) of every problem; each has a line."""
    with pytest.raises(Problems) as caught:
        load(place)
    assert all(each.line > 0 for each in caught.value.problems)
    return [(f"{Path(each.file).name} {each.field}", each.message) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("kind", "changes", "field", "says"),
    [
        ("tokens", {"credentials": {}}, "credentials", "is one of federation and key"),
        (
            "tokens",
            {"credentials": {"key": "file:/k", "federation": {"audience": AUDIENCE}}},
            "credentials",
            "is one of federation and key",
        ),
        ("tokens", {"credentials": {"key": "AIzaSecret"}}, "credentials.key", "must be a reference"),
        ("tokens", {"credentials": {"federation": {"audience": "x"}}}, "credentials.federation.audience", "must match"),
        ("tokens", {"service_accounts": []}, "service_accounts", "at least 1 item"),
        ("tokens", {"service_accounts": ["orders-reader"]}, "service_accounts.0", "must match"),
        ("tokens", {"service_accounts": [READER, READER]}, "settings", "names one twice"),
        ("tokens", {"endpoint_url": "http://gcp.test"}, "endpoint_url", "must be https"),
        ("tokens", {"canary_bucket": "A"}, "canary_bucket", "must match"),
        ("pools", {"project": "4711"}, "project", "must match"),
        ("pools", {"pools": {}}, "pools", "at least 1 item"),
        ("pools", {"pools": {"a": {"prefix": "orders-", "size": 0}}}, "pools.a.size", "greater than or equal to 1"),
        ("pools", {"pools": {"a": {"prefix": "x" * 28, "size": 1}}}, "pools.a.prefix", "must match"),
        (
            "pools",
            {"pools": {"a": {"prefix": "orders-", "size": 2}, "b": {"prefix": "orders-", "size": 1}}},
            "settings",
            "share orders-000",
        ),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, kind: str, changes: dict[str, Any], field: str, says: str) -> None:
    entries = connectors()
    entries[kind]["settings"].update(changes)
    found = refused(written(tmp_path, entries))
    assert any(place.endswith(field) and says in message for place, message in found), found


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"service_account": "nobody-here"}, "grant.service_account", "is not among the connector's service_accounts"),
        ({"service_account": READER}, "grant.service_account", "must match"),
        ({"scopes": []}, "grant.scopes", "at least 1 item"),
        ({"scopes": ["cloud-platform"]}, "grant.scopes.0", "must match"),
        ({"boundary": [rule() for _ in range(11)]}, "grant.boundary", "at most 10 items"),
        ({"boundary": []}, "grant.boundary", "at least 1 item"),
        ({"boundary": [rule(roles=["storage.admin"])]}, "grant.boundary.0.roles.0", "must match"),
        ({"boundary": [rule(below=["exports"])]}, "grant.boundary.0.below", "must end in the text '/'"),
        ({"boundary": [rule(below=[{"parameter": "day"}])]}, "grant.boundary.0.below", "must end in the text '/'"),
        ({"boundary": [rule(below=["it's/"])]}, "grant.boundary.0.below", "must not hold quotes"),
        ({"boundary": [rule(bucket="Orders")]}, "grant.boundary.0.bucket", "lower-case letters"),
        ({"boundary": [rule(object="a")]}, "grant.boundary.0", "has below or object, not both"),
        ({"boundary": [rule(below=[{"parameter": "unknown"}, "/"])]}, "below.0", "is not a parameter"),
        ({"boundary": [rule(below=[{"parameter": "free"}, "/"])]}, "below.0", "may hold more than plain text"),
        ({"lifetime": 3600}, "grant.lifetime", "is not a known key"),
    ],
)
def test_grants_that_are_wrong(tmp_path: Path, changes: dict[str, Any], field: str, says: str) -> None:
    found = refused(written(tmp_path, connectors(), tokens=template("tokens", token_grant(**changes))))
    here = [message for place, message in found if place.startswith("tokens.yaml") and place.endswith(field)]
    assert any(says in message for message in here), found


def test_a_pool_that_there_is_not(tmp_path: Path) -> None:
    grant = {"pool": "others", "scopes": [READ_ONLY]}
    found = refused(written(tmp_path, connectors(), pools=template("pools", grant)))
    assert found == [("pools.yaml grant.pool", "others is no pool of the connector")]


def test_an_account_that_is_no_project(tmp_path: Path) -> None:
    wrong = {**template("pools", {"pool": "orders", "scopes": [READ_ONLY]}), "accounts": ["acme_data"]}
    found = refused(written(tmp_path, connectors(), pools=wrong))
    assert found == [("pools.yaml accounts.0", "acme_data is no project id of Google Cloud")]
