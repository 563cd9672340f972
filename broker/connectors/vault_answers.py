"""Reading an answer of Vault or OpenBao: each value as what it must be, or a failure with unknown outcome.

Half an object is never a value with holes (faults.md F8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from broker.connectors.vault_http import Known, VaultFailure


def half(name: str) -> VaultFailure:
    """The failure to raise where an answer that says success lacks ``name``: something may have been made."""
    return VaultFailure(Known.UNKNOWN, f"the answer says success but its {name!r} is missing or malformed")


def object_in(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object ``name``. Raises VaultFailure where it is none, like its siblings here."""
    value = answer.get(name)
    if not isinstance(value, dict):
        raise half(name)
    return value


def text_in(answer: Mapping[str, Any], name: str) -> str:
    """A text that is not empty."""
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise half(name)
    return value


def texts_in(answer: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts; it may be empty."""
    value = answer.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(each, str) for each in value):
        raise half(name)
    return tuple(value)


def integer_in(answer: Mapping[str, Any], name: str) -> int:
    """A whole number; true and false are none."""
    value = answer.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise half(name)
    return value


def time_in(answer: Mapping[str, Any], name: str) -> datetime:
    """RFC 3339, with the server's nanoseconds cut to microseconds by the parser."""
    try:
        value = datetime.fromisoformat(text_in(answer, name))
    except ValueError:
        value = None
    if value is None or value.tzinfo is None:
        raise half(name)
    return value.astimezone(UTC)
