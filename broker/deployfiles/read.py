"""One file of a set that has its shape: its content, and where each part of it stood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from broker.files import Document, Model, Problem
from broker.files.document import Path, dotted

_M = TypeVar("_M", bound=Model, covariant=True)


@dataclass(frozen=True, slots=True)
class Read(Generic[_M]):
    """One file: its content, and where each part of it stood."""

    document: Document
    content: _M

    @property
    def stem(self) -> str:
        """The file's name without its folder and ``.yaml``."""
        return self.document.file.rpartition("/")[2].removesuffix(".yaml")

    def place(self, at: Path) -> str:
        """File and line of the part at ``at``, for the problem of another file."""
        return f"{self.document.file}:{self.document.line(at)}"

    def problem(self, at: Path, message: str, hint: str = "") -> Problem:
        """A problem with the part at ``at``."""
        return Problem(self.document.file, self.document.line(at), dotted(at), message, hint)
