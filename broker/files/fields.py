"""Field types that operators' files share, and pydantic's complaints turned into problems with places."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from broker.files.document import Document, Path, dotted
from broker.files.problems import Problem, Problems

_DURATION = re.compile(r"([1-9][0-9]{0,5})(ms|s|m|h|d)\Z", re.ASCII)
_EMPTY = "Say something, or leave the key out."
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_REFERENCE = re.compile(r"(?:file:[^\x00-\x1f]+|env:[A-Za-z_][A-Za-z0-9_]*)\Z", re.ASCII)


class Model(BaseModel):
    """What operators write: unknown keys refused, no type bent into another, immutable once read."""

    # Built when first used: a set has few of the kinds, and what is part of another model is built with that one.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, defer_build=True)


# Where null is a value of its own: what a test of policies supposes of a bound. Anywhere else a key without a value is
# a list that was commented out, or a slip, and would lift what it is there to set: `tools:`, `boundary:`, `until:`.
NULL_IS_A_VALUE = frozenset({"bound_on_revoke", "bound_on_broker_dead", "bound_on_upstream_dead"})


def parse_duration(value: object) -> timedelta:
    """``30s``, ``15m``, ``1h``: a positive whole number and one unit. Raises :class:`ValueError`."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration like 30s, 15m or 1h (ms, s, m, h, d), and more than zero")
    return int(match[1]) * _UNITS[match[2]]


def parse_reference(value: str) -> str:
    """``file:PATH`` or ``env:NAME``. The value itself is never written down: that is the point."""
    if not _REFERENCE.match(value):
        # The value is not told: it may be the secret that should have been referred to.
        raise ValueError("must be a reference, file:PATH or env:NAME, not the secret itself")
    return value


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,5}(ms|s|m|h|d)$", "examples": ["30s", "15m", "1h"]}),
]
Reference = Annotated[
    str,
    AfterValidator(parse_reference),
    WithJsonSchema({"type": "string", "pattern": "^(file:.+|env:[A-Za-z_][A-Za-z0-9_]*)$"}),
]

_M = TypeVar("_M", bound=BaseModel)


def validated(model: type[_M], document: Document, *, at: Path = (), context: object = None) -> _M:
    """What ``document`` holds at ``at``, as ``model``. Raises :class:`Problems`, each at its line."""
    try:
        found = model.model_validate(document.value(at), context=context)
    except ValidationError as error:
        # include_input=False: a value in the wrong place may be a secret.
        details = error.errors(include_url=False, include_input=False)
        raise Problems([_problem(document, at, each) for each in details]) from None
    if empty := [path for path in document.places if _is_empty(document, at, path)]:
        raise Problems(
            [Problem(document.file, document.line(each), dotted(each), "is empty", _EMPTY) for each in empty]
        )
    return found


def _is_empty(document: Document, at: Path, path: Path) -> bool:
    inside = path[: len(at)] == at and path != at
    return inside and document.value(path) is None and path[-1] not in NULL_IS_A_VALUE


def _problem(document: Document, at: Path, details: ErrorDetails) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    told = (*at, *details["loc"])
    if kind.startswith("union_tag_"):  # about the key that tells the union's members apart
        told = (*told, str(context["discriminator"]).strip("'"))
    path = document.known(told)
    field = (*path, told[-1]) if kind in ("missing", "union_tag_not_found") else path
    message, hint = _words(kind, details["msg"], context)
    if kind.endswith("_type") and document.value(path) is None:
        message, hint = "is empty", ""
    return Problem(document.file, document.line(path), dotted(field), message, hint)


def _words(kind: str, message: str, context: dict[str, Any]) -> tuple[str, str]:
    match kind:
        case "missing" | "union_tag_not_found":
            return "is missing", ""
        case "extra_forbidden":
            return "is not a known key", "Check the spelling against deploy/schemas."
        case "string_type":
            return "must be a text", "Put it in quotes."
        case "list_type" | "tuple_type" | "frozen_set_type" | "set_type":
            return "must be a list", "Write it as [one, other], or one item a line after a dash."
        case "dict_type" | "model_type":
            return "must be a mapping", "Write it as {key: value}, or one key a line below."
        case "string_pattern_mismatch":
            return f"must match {context['pattern']}", ""
        case "union_tag_invalid":
            tag = context["tag"]  # as somebody wrote it: of any length, on any number of lines
            told = tag if tag.isascii() and tag.isprintable() and len(tag) <= 64 else f"{tag[:64]!a}"
            return f"is {told}", f"There is: {context['expected_tags']}."
        case "value_error":
            return str(context["error"]), ""
        case _:
            return message.replace("Input should be", "must be", 1), ""
