"""A decision is a value with its reasons: easy to log, to test, and to show the agent it refused."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What was decided."""

    ALLOW = "ALLOW"
    DENY = "DENY"


@dataclass(frozen=True, slots=True)
class Decision:
    """Allow or deny, always with what made it.

    ``policies``: ids of the determining policies (empty for the default deny). ``explanations``:
    their ``@reason`` annotations, for people. ``errors``: evaluation errors; any makes it a DENY.
    """

    effect: Effect
    policies: tuple[str, ...]
    explanations: tuple[str, ...]
    errors: tuple[str, ...]
    set_digest: str

    @property
    def allowed(self) -> bool:
        """True only for a clean ALLOW."""
        return self.effect is Effect.ALLOW and not self.errors
