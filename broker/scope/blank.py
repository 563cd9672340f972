"""Texts that say nothing: what is mandatory has to be there for people, not only for the length of a field."""

from __future__ import annotations

from broker.errors import InvalidInput, Reason


def blank(text: str) -> bool:
    """Whether nobody could read anything in it: white space, and what has no picture (U+200B, controls)."""
    return not any(each.isprintable() and not each.isspace() for each in text)


def refuse_blank(field: str, text: str) -> None:
    """Raises :class:`InvalidInput` (FIELD_INVALID) where ``field`` says nothing."""
    if blank(text):
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"{field}: says nothing.",
            hint="Say it in words; people read it, and the audit trail keeps it.",
            metadata={"fields": field, "field": field},
        )
