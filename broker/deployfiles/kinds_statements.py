"""The statements of a session policy, as grants of AWS and of MinIO have them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from broker.deployfiles.kinds_fields import ParameterSegment, Text
from broker.files import Model

_ARN = re.compile(r"arn:aws[a-z-]*:[a-z0-9-]+:", re.ASCII)


class TextSegment(Model):
    """Literal text, as the operator wrote it."""

    text: Text


class ResourceSegment(Model):
    """The resource named in the request."""

    resource: Literal[True]


def _segment(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict) or len(value) != 1 or value.keys().isdisjoint({"text", "parameter", "resource"}):
        raise ValueError("must be a text, {parameter: NAME} or {resource: true}")
    return value


def _segments(value: object) -> object:
    return [value] if isinstance(value, str) else value


# Text may stand for {text: ...}, and one text for a list of one segment.
AnySegment = TextSegment | ParameterSegment | ResourceSegment
Segment = Annotated[AnySegment, BeforeValidator(_segment, json_schema_input_type=str | AnySegment)]
Segments = Annotated[
    list[Segment],
    Field(min_length=1, max_length=16),
    BeforeValidator(_segments, json_schema_input_type=str | list[Segment]),
]


def _arn(segments: list[Segment]) -> list[Segment]:
    first = segments[0]
    if not isinstance(first, TextSegment) or not (_ARN.match(first.text) or (first.text == "*" and len(segments) == 1)):
        raise ValueError('must start with the text of an ARN (arn:aws:service:...), or be "*" alone')
    return segments


Arn = Annotated[Segments, AfterValidator(_arn)]
Action = Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Za-z][A-Za-z0-9]*\*?$")]
ConditionOperator = Annotated[str, Field(pattern=r"^((ForAnyValue|ForAllValues):)?[A-Z][A-Za-z]+$")]
ConditionKey = Annotated[str, Field(pattern=r"^[a-z0-9-]+:[A-Za-z0-9/:._+=@-]+$")]


class Statement(Model):
    """One Allow of the session policy. Text and values are joined as data, after both were checked."""

    sid: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,64}$")] | None = None
    actions: list[Action] = Field(min_length=1, max_length=32)
    resources: list[Arn] = Field(min_length=1, max_length=32)
    conditions: dict[ConditionOperator, dict[ConditionKey, list[Segments]]] | None = None
