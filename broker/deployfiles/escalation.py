"""escalation.yaml: which refusals look like an attempt to get more, and what is done about them (R11).

A set may do without the file; then nothing is detected.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from broker.deployfiles.models import Slug
from broker.deployfiles.read import Read
from broker.errors import Reason
from broker.escalation.rules import Answer, Counts, Mode, Rule
from broker.files import Duration, Model


def reasons_named(pattern: str) -> frozenset[Reason]:
    """The reasons that ``pattern`` names: one, or all with a beginning (``PLAN_*``). Raises :class:`ValueError`."""
    start = pattern.removesuffix("*")
    found = frozenset(each for each in Reason if (each.startswith(start) if start != pattern else each == pattern))
    if not found or not start:
        raise ValueError(f"{pattern} names no reason (docs/reasons.md); write one, or the beginning of several with *")
    return found


def _reason(value: str) -> str:
    reasons_named(value)
    return value


ReasonPattern = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,62}\*?$"), AfterValidator(_reason)]


class RuleEntry(Model):
    """One rule: it fires for a SPIFFE ID that reaches the threshold within the time."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"answer": {"const": "cool_down"}}},
            "then": {"required": ["cool_down"]},
        }
    )

    counts: Annotated[Counts, Field(strict=False)] = Field(
        description="Every refusal; different templates or resources refused; ids of somebody else's that were used."
    )
    reasons: list[ReasonPattern] = Field(
        default_factory=list,
        max_length=100,
        description="Only refusals for these reasons; * at the end stands for any ending. Default: all that say "
        "something about the agent (families Denied and InvalidInput).",
    )
    threshold: Annotated[int, Field(ge=1, le=1_000)]
    within: Duration
    mode: Annotated[Mode, Field(strict=False)] = Field(description="observe: recorded, and nothing else happens.")
    answer: Annotated[Answer, Field(strict=False)]
    cool_down: Duration | None = Field(None, description="How long; with answer: cool_down.")

    @model_validator(mode="after")
    def _fits(self) -> RuleEntry:
        if (self.answer is Answer.COOL_DOWN) != (self.cool_down is not None):
            raise ValueError("says cool_down: DURATION with answer: cool_down, and only then")
        if self.reasons and self.counts is Counts.FOREIGN_IDS:
            raise ValueError("says reasons, and counts the use of somebody else's ids, which has one")
        return self


class EscalationFile(Model):
    """escalation.yaml."""

    rules: dict[Slug, RuleEntry] = Field(min_length=1, max_length=50)


def rules_of(file: Read[EscalationFile]) -> tuple[Rule, ...]:
    """The rules of a file that has its shape."""
    return tuple(_rule(name, entry) for name, entry in file.content.rules.items())


def _rule(name: str, entry: RuleEntry) -> Rule:
    rule = Rule(
        name,
        entry.counts,
        entry.threshold,
        entry.within,
        entry.mode,
        entry.answer,
        frozenset(reason for pattern in entry.reasons for reason in reasons_named(pattern)),
    )
    return rule if entry.cool_down is None else replace(rule, cool_down=entry.cool_down)
