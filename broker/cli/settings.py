"""What every command is told: the global options, and the numbers to exit with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

EXIT_WRONG, EXIT_USAGE, EXIT_REFUSED, EXIT_UNAVAILABLE = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options, and the environment this process was given."""

    address: str
    server_name: str
    workload_api: str
    certificate: Path | None
    key: Path | None
    bundle: Path | None
    environment: Mapping[str, str]
    audience: str = ""
    token_file: Path | None = None
    seal: bool | None = None
    trust_domain: str = ""  # the broker's; empty: the caller's own
