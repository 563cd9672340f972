"""Every secret that the upstream ever made is looked for wherever something lies or is told (faults.md, I12)."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import structlog

from tests.simulation.broken import Broken

# What every secret begins with, so that all of them are looked for at once.
BEGINNING = "sesame-"


def secret(attempt: str) -> str:
    """That of one credential."""
    return f"{BEGINNING}{attempt}"


def _forms(text: str) -> Iterator[bytes]:
    """As it is, in hex, and in base64 wherever it begins there."""
    plain = text.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + plain)
        # What the bytes before and behind have a part in is cut off.
        yield encoded[-(-before * 8 // 6) : len(encoded) - 4]


_LOOKED_FOR = tuple(_forms(BEGINNING + "jb-"))


def look_at(where: str, said: bytes) -> None:
    """Raises Broken where a secret is in it."""
    for form in _LOOKED_FOR:
        if (at := said.find(form)) >= 0:
            raise Broken(f"I12: in {where} is a secret: {said[max(0, at - 80) : at + 60]!r}")


def look_at_files(files: Iterable[Path]) -> None:
    """As they lie there, with what was deleted and not written over. Raises Broken."""
    for file in files:
        look_at(file.name, file.read_bytes())


def look_at_logs(fail: Callable[[Broken], None]) -> None:
    """From now on everything that is logged is looked at, and goes nowhere."""

    def look(logger: Any, level: str, said: dict[str, Any]) -> Any:
        try:
            look_at("the log", repr(said).encode())
        except Broken as broken:
            fail(broken)
        raise structlog.DropEvent

    structlog.configure(processors=[look], wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
