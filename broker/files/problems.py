"""What is wrong in operators' files: all of it at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from broker.errors import InvalidInput, Reason


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong. ``line`` counts from 1, and is 1 for a file as a whole; ``field`` is dotted, or empty."""

    file: str
    line: int
    field: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}: {field}{self.message}{hint}"


class Problems(InvalidInput):
    """Files that cannot be used (CONFIG_INVALID), with everything that is wrong in them, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("Problems without a problem")
        self.problems = tuple(sorted(set(problems)))
        count = len(self.problems)
        what = "1 problem" if count == 1 else f"{count} problems"
        super().__init__(
            Reason.CONFIG_INVALID,
            f"{what} in operators' files:\n" + "\n".join(str(problem) for problem in self.problems),
            metadata={"problems": str(count), "first": str(self.problems[0])},
        )
