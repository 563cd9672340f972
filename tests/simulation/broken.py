"""What a run ends with that went wrong."""

from __future__ import annotations


class Broken(AssertionError):
    """A promise that was not kept."""
