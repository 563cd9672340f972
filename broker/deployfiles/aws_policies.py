"""What a linter says of the session policies in templates: actions that AWS has not, resources they do not take.

parliament (BSD) knows every service's actions, offline, as of its release. AWS makes new ones every week, so its word
is a warning: nothing that it does not know keeps a set from being taken. Asked by ``broker check`` alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from broker.deployfiles.kinds_aws import AwsStsGrant
from broker.deployfiles.kinds_statements import Statement, TextSegment
from broker.deployfiles.models import TemplateFile
from broker.deployfiles.read import Read
from broker.files import Problem, Problems, validated
from broker.ports.deploys import ConnectorSpec

# Kinds of connector whose templates grant IAM statements.
KINDS = frozenset({"aws-sts"})
# What a request will put in: parliament compares forms, and this fits where a name does.
_SAMPLE = "sample"
_TOLD = {
    "UNKNOWN_ACTION": "is no action that AWS is known to have",
    "UNKNOWN_PREFIX": "is of no service that AWS is known to have",
    "RESOURCE_MISMATCH": "takes none of these resources",
    "UNKNOWN_CONDITION_FOR_ACTION": "does not know this condition",
    "MISMATCHED_TYPE": "compares a condition's key with a value of another type",
    "UNKNOWN_OPERATOR": "has an operator that IAM does not know",
    "INVALID_ARN": "names a resource by what is no ARN",
}
_HINT = (
    "parliament says so, which knows AWS as of its release; look the action up in the Service Authorization Reference."
)


def lint(files: Iterable[Read[TemplateFile]], connectors: Mapping[str, ConnectorSpec]) -> list[Problem]:
    """The warnings, at file, line and field, sorted."""
    found: set[Problem] = set()
    for file in files:
        connector = connectors.get(file.content.connector)
        if connector is None or connector.kind not in KINDS:
            continue
        try:
            grant = validated(AwsStsGrant, file.document, at=("grant",))
        except Problems:
            continue  # told as what it is
        for index, statement in enumerate(grant.policy):
            found.update(_of_statement(file, index, statement))
    return sorted(found)


def _of_statement(file: Read[TemplateFile], index: int, statement: Statement) -> Iterator[Problem]:
    # Action by action, so that it is known which one is meant.
    for number, action in enumerate(statement.actions):
        at = ("grant", "policy", index, "actions", number)
        for issue in sorted(_issues(action, statement)):
            yield file.problem(at, f"{action} {_TOLD[issue]}", _HINT)


def _issues(action: str, statement: Statement) -> set[str]:
    written: dict[str, Any] = {
        "Effect": "Allow",
        "Action": [action],
        "Resource": [_sample(each) for each in statement.resources],
    }
    if statement.conditions is not None:
        written["Condition"] = {
            operator: {key: [_sample(each) for each in values] for key, values in keys.items()}
            for operator, keys in statement.conditions.items()
        }
    policy = {"Version": "2012-10-17", "Statement": [written]}
    findings = _parliament().analyze_policy_string(json.dumps(policy)).findings
    found = {finding.issue for finding in findings} & _TOLD.keys()
    # Among the many that a wildcard stands for there is always one of another kind of resource.
    return found - {"RESOURCE_MISMATCH"} if action.endswith("*") else found


def _sample(segments: Iterable[Any]) -> str:
    return "".join(each.text if isinstance(each, TextSegment) else _SAMPLE for each in segments)


def _parliament() -> Any:
    """The linter, imported when it is first asked: it reads ten megabytes."""
    if "parliament" not in sys.modules and find_spec("pkg_resources") is None:
        # It asks pkg_resources, which setuptools has dropped, where two of its own files are, and nothing else.
        stand_in = ModuleType("pkg_resources")
        stand_in.resource_filename = _own_file  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
        try:
            import parliament
        finally:
            del sys.modules["pkg_resources"]
        return parliament
    import parliament

    return parliament


def _own_file(package: str, name: str) -> str:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None  # noqa: S101 - it is being imported
    return str(Path(spec.origin).parent / name)
