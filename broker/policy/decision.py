"""A decision is a value with its reasons: easy to log, to test, and to show the agent it refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What was decided."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    NEEDS_APPROVAL = "NEEDS_APPROVAL"  # denied now, and allowed as soon as people have given what is missing


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow, deny or needs approval, always with what made it.

    ``policies``: ids of the determining policies (empty for the default deny). ``explanations``:
    their ``@reason`` annotations, for people. ``errors``: evaluation errors; any makes it a DENY.
    ``approvals``: of NEEDS_APPROVAL, the approvals (by name) that are missing and would make it an ALLOW.
    """

    effect: Effect
    policies: tuple[str, ...]
    explanations: tuple[str, ...]
    errors: tuple[str, ...]
    set_digest: str
    approvals: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """True only for a clean ALLOW."""
        return self.effect is Effect.ALLOW and not self.errors
