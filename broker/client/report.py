"""What an agent tells of its task's outcome, on the wire and as it is written in a file."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, TypeVar

from broker.api.v1 import broker_service_pb2 as pb
from broker.audit.report import Artifact, Mutation, TaskReport
from broker.errors import InvalidInput, Reason

T = TypeVar("T", Artifact, Mutation)
_ACTIONS = frozenset(name.removeprefix("ACTION_") for name in pb.Mutation.Action.keys()[1:])


def put(report: TaskReport, request: pb.CompleteTaskRequest) -> None:
    """Into the request. Raises :class:`InvalidInput` for an action that is none."""
    request.artifacts.extend(
        pb.Artifact(uri=each.uri, sha256=each.sha256, media_type=each.media_type, description=each.description)
        for each in report.artifacts
    )
    request.mutations.extend(_mutation(each) for each in report.mutations)


def _mutation(told: Mutation) -> pb.Mutation:
    if told.action not in _ACTIONS:
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"{told.action!a} is no action of a mutation.",
            hint=f"One of: {', '.join(sorted(_ACTIONS))}.",
            metadata={"field": "mutations.action"},
        )
    return pb.Mutation(
        resource=told.resource,
        action=f"ACTION_{told.action}",
        description=told.description,
        count=told.count,
        lease_id=told.lease_id,
    )


def parse_report(text: str) -> TaskReport:
    """A report as JSON: ``{"artifacts": [{"uri": ...}], "mutations": [{"resource": ..., "action": "UPDATED"}]}``.

    Fields are those of :class:`Artifact` and :class:`Mutation`. Raises :class:`InvalidInput`, which says where it is
    wrong.
    """
    try:
        told = json.loads(text)
    except ValueError as error:
        raise _unreadable(f"it is no JSON: {error}") from None
    if not isinstance(told, dict) or not told.keys() <= {"artifacts", "mutations"}:
        raise _unreadable('it is no object with "artifacts" and "mutations"')
    return TaskReport(
        tuple(_read(Artifact, each, f"artifacts[{n}]") for n, each in enumerate(_list(told, "artifacts"))),
        tuple(_read(Mutation, each, f"mutations[{n}]") for n, each in enumerate(_list(told, "mutations"))),
    )


def _list(told: dict[str, Any], name: str) -> list[Any]:
    found = told.get(name, [])
    if not isinstance(found, list):
        raise _unreadable(f"{name} is no list")
    return found


def _read(kind: type[T], told: Any, where: str) -> T:
    known = {each.name: str if each.name != "count" else int for each in fields(kind)}
    if not isinstance(told, dict) or not told.keys() <= known.keys():
        raise _unreadable(f"{where} is no object with fields among {', '.join(known)}")
    for name, value in told.items():
        if type(value) is not known[name]:
            raise _unreadable(f"{where}.{name} is no {'number' if known[name] is int else 'text'}")
    try:
        return kind(**told)
    except TypeError:
        raise _unreadable(f"{where} lacks {'uri' if kind is Artifact else 'resource or action'}") from None


def _unreadable(why: str) -> InvalidInput:
    return InvalidInput(
        Reason.FIELD_INVALID,
        f"the report cannot be read: {why}.",
        hint='Such as {"artifacts": [{"uri": "..."}], "mutations": [{"resource": "...", "action": "UPDATED"}]}.',
        metadata={"field": "report"},
    )
