"""The published schemas are those of the models, and agree with them on the files we have."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from broker.deployfiles.schemas import published, write

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GOOD = Path(__file__).parent / "good"
PUBLISHED = published()
FILES = [path for root in (DEPLOY / "dev", GOOD) for path in sorted(root.rglob("*.yaml"))]


def schema_of(path: Path) -> str:
    return {"agents": "agent", "templates": "template", "policies": "policy_tests"}.get(
        path.parent.name, path.stem
    ) + ".schema.json"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(PUBLISHED[name]))


def test_the_published_files_are_fresh(tmp_path: Path) -> None:
    write(tmp_path)
    for name, text in PUBLISHED.items():
        assert (tmp_path / name).read_text() == text
        assert (DEPLOY / "schemas" / name).read_text() == text, (
            f"stale: {name}; run python -m broker.deployfiles.schemas deploy/schemas"
        )
    assert {path.name for path in (DEPLOY / "schemas").iterdir()} == PUBLISHED.keys()


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.endswith(".json")])
def test_each_is_a_json_schema_that_refuses_unknown_keys(name: str) -> None:
    schema: Any = json.loads(PUBLISHED[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    assert all(d.get("additionalProperties") is False for d in schema["$defs"].values() if d.get("type") == "object")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_loader_takes_the_schema_takes(path: Path) -> None:
    validator(schema_of(path)).validate(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("name", ["unknown-key", "agent-without-owner", "agent-zero-quota", "unknown-tier"])
def test_what_is_wrong_in_itself_an_editor_sees_too(name: str) -> None:
    text = (Path(__file__).parent / "broken" / name / "agents/analyst.yaml").read_text()
    with pytest.raises(jsonschema.ValidationError):
        validator("agent.schema.json").validate(yaml.safe_load(text))


@pytest.mark.parametrize("path", sorted((DEPLOY / "dev").rglob("*.yaml")), ids=lambda path: path.name)
def test_each_dev_file_names_its_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    prefix, _, target = first.partition("$schema=")
    assert prefix == "# yaml-language-server: "
    assert (path.parent / target).resolve() == DEPLOY / "schemas" / schema_of(path)
