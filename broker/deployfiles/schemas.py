"""The published JSON Schemas, made from the models: ``python -m broker.deployfiles.schemas deploy/schemas``.

Editors complete and check with them; ``broker check`` checks more (references between files, what
RE2 and Cedar accept). A test keeps the published files fresh.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker.config import Config
from broker.deployfiles.approvals import ApprovalsFile
from broker.deployfiles.denied import DeniedFile
from broker.deployfiles.escalation import EscalationFile
from broker.deployfiles.federation import TrustDomainsFile
from broker.deployfiles.kinds import GRANTS
from broker.deployfiles.load import policy_schema
from broker.deployfiles.models import AgentFile, ConnectorsFile, PeopleFile, TemplateFile
from broker.deployfiles.policy_tests import PolicyTestsFile
from broker.deployfiles.quotas import QuotasFile
from broker.files import Model

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: Mapping[str, type[Model]] = {
    "agent": AgentFile,
    "approvals": ApprovalsFile,
    "brokerd": Config,
    "connectors": ConnectorsFile,
    "denied": DeniedFile,
    "escalation": EscalationFile,
    "people": PeopleFile,
    "policy_tests": PolicyTestsFile,
    "quotas": QuotasFile,
    "template": TemplateFile,
    "trust_domains": TrustDomainsFile,
}


def published() -> dict[str, str]:
    """Every file of ``deploy/schemas``, name to text."""
    files = {f"{name}.schema.json": _text(_schema(name, model)) for name, model in _MODELS.items()}
    return {**files, "broker.cedarschema": policy_schema()}


def write(directory: Path) -> None:
    """Writes them into ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in published().items():
        (directory / name).write_text(text, "utf-8")


def _schema(name: str, model: type[Model]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="validation")
    if model is TemplateFile:
        _describe_grants(schema)
    return {"$schema": _DRAFT, "title": f"{name}.yaml", **{k: v for k, v in schema.items() if k != "title"}}


def _describe_grants(schema: dict[str, Any]) -> None:
    # Which of them it is, the connector decides: a reference between files that JSON Schema cannot follow.
    grants = []
    for model in GRANTS.values():
        grant = model.model_json_schema(mode="validation", ref_template="#/$defs/{model}")
        schema["$defs"].update(grant.pop("$defs", {}))
        schema["$defs"][model.__name__] = grant
        grants.append({"$ref": f"#/$defs/{model.__name__}"})
    schema["properties"]["grant"] = {"description": schema["properties"]["grant"]["description"], "anyOf": grants}


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
