"""What a step of a plan may be called: a name that people tell apart, because they confirm it by reading.

An executor cites a step by exactly its text. Two texts that look alike, one of which nobody has looked at closely, are
two steps, so none is taken in that shows other than it is. Letters of other scripts that look like Latin ones are taken
in: they are how people write elsewhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from broker.errors import InvalidInput, Reason


def check_steps(steps: Iterable[str]) -> None:
    """Raises :class:`InvalidInput` (FIELD_INVALID) for a step that is no such name, or is there twice."""
    first: dict[str, str] = {}
    for step in steps:
        if not all(each.isprintable() for each in step):
            raise _unfit(step, "has characters that nobody can see")
        if not step or step != step.strip():
            raise _unfit(step, "begins or ends with a blank, or says nothing")
        if (plain := unicodedata.normalize("NFKC", step)) != step:
            raise _unfit(step, f"looks like {plain!a}", f"Write it as {plain!a}.")
        if (other := first.get(step.casefold())) is not None:
            same = "is there twice" if other == step else f"is {other!a} in other letters"
            raise _unfit(step, same, "Give each action a step of its own.")
        first[step.casefold()] = step


def _unfit(step: str, why: str, hint: str = "Name each step in words that look like what they are.") -> InvalidInput:
    return InvalidInput(
        Reason.FIELD_INVALID,
        f"actions: the step {step!a} {why}.",
        hint=hint,
        metadata={"fields": "actions", "field": "actions"},
    )
