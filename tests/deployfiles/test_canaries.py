"""The canary of a connector: bound to its template when the set is checked, and told by file, line and field."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.canary.canary import Canary
from broker.deployfiles.load import load
from broker.files import Problems
from broker.identity.own import CANARY, canary_agent
from tests.deployfiles.test_broken import private_copy

DEV = Path(__file__).parents[2] / "deploy/dev"
NAME = "openbao-orders"


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    return private_copy(DEV, tmp_path / "dev")


def change(directory: Path, **changes: Any) -> None:
    """Other values of the canary of the dev set; None: without that key."""
    path = directory / "connectors.yaml"
    said = yaml.safe_load(path.read_text())
    canary = {**said["connectors"][NAME]["canary"], **changes}
    said["connectors"][NAME]["canary"] = {key: value for key, value in canary.items() if value is not None}
    path.write_text(yaml.safe_dump(said, sort_keys=False))


def problems(directory: Path) -> list[tuple[str, str, str]]:
    with pytest.raises(Problems) as caught:
        load(directory)
    found = caught.value.problems
    assert {each.file for each in found} == {str(directory / "connectors.yaml")}
    text = (directory / "connectors.yaml").read_text().splitlines()
    for each in found:
        assert each.field.rpartition(".")[2] in text[each.line - 1], each
    return [
        (each.field.removeprefix(f"connectors.{NAME}.canary").removeprefix("."), each.message, each.hint)
        for each in found
    ]


def test_what_it_says(dev: Path) -> None:
    deploy = load(dev, "dev.broker.internal")
    assert deploy.canaries == {
        NAME: Canary(NAME, "orders-readonly", "dev", "dev", "orders", timedelta(seconds=5), timedelta(minutes=10)),
        "minio": Canary(
            "minio", "reports-s3-canary", "dev", "dev", "orders-reports", timedelta(seconds=5), timedelta(minutes=10)
        ),
    }
    assert deploy.registry.own == canary_agent("dev.broker.internal")
    assert deploy.registry.own not in list(deploy.registry)


def test_it_is_no_part_of_what_a_connector_is_so_that_a_change_replaces_none(dev: Path) -> None:
    before = load(dev).connectors[NAME].digest
    change(dev, every="1h")
    assert load(dev).connectors[NAME].digest == before


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"template": "nothing"}, "template", "nothing is no template"),
        ({"template": "reports-read"}, "template", "reports-read is a template of connector aws"),
        ({"template": "orders-readwrite"}, "template", "requires ticket"),
        ({"account": "prod"}, "account", "does not cover the account 'prod'"),
        ({"environment": "production"}, "environment", "does not cover the environment 'production'"),
        ({"resource": "customers"}, "resource", "customers"),
        ({"parameters": {"more": "x"}}, "parameters", "more"),
        ({"ttl": "16m", "every": "1h"}, "ttl", "allows 900 s, not 960 s"),
        ({"ttl": "2h", "every": "1d"}, "ttl", "is not between 1 s and 1 h"),
        ({"ttl": "500ms"}, "ttl", "is not between 1 s and 1 h"),
        ({"ttl": "0s"}, "ttl", "must be a duration"),
        ({"ttl": None}, "ttl", "is missing"),
        ({"every": "9s", "ttl": "1s"}, "every", "is shorter than 10 s"),
        ({"every": "20s", "ttl": "10s"}, "every", "is not longer than two of its credentials live"),
        ({"hourly": True}, "hourly", "is not a known key"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(dev: Path, changes: dict[str, Any], field: str, told: str) -> None:
    change(dev, **changes)
    if field == "ttl" and changes.get("ttl") is None:
        with pytest.raises(Problems, match="ttl: is missing"):
            load(dev)
        return
    found = problems(dev)
    assert any(field == where and told in message for where, message, _ in found), found


def test_no_file_of_agents_is_the_broker(dev: Path) -> None:
    path = dev / "agents" / "other.yaml"
    text = path.read_text()
    path.write_text(text.replace("/agent/other", "/jit-broker/canary"))
    with pytest.raises(Problems, match="is the broker's own id"):
        load(dev)


def test_a_policy_cannot_name_it_where_there_is_none(dev: Path) -> None:
    path = dev / "connectors.yaml"
    said = yaml.safe_load(path.read_text())
    for entry in said["connectors"].values():
        entry.pop("canary", None)
    path.write_text(yaml.safe_dump(said))
    with pytest.raises(Problems, match=rf"'{CANARY}' is no file of agents/"):
        load(dev)
