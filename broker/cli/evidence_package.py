"""A package of evidence on disk: one framework, one span of the trail, everything about it in plain files.

::

    README.md              control by control: what serves it, how many records show it, what is not covered
    controls.json          the same for programs
    records/TYPE.jsonl     the records themselves, a canonical record per line, as they are stored
    damaged.jsonl          records of the trail that do not verify: they count for no control
    verification.jsonl     every finding of verifying the trail; empty if it is whole
    manifest.json          SHA-256 and size of every file; written last, so that a package without it is not whole

Belongs here: writing it, in one pass and constant memory. Not here: what is evidence for what (``broker/compliance``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from broker.audit.record import Record, decode
from broker.audit.verify import Finding, Problem, StoredRecord
from broker.cli.output import moment
from broker.compliance.framework import Control, Framework
from broker.errors import Tampered

# What is wrong with the record itself, and not beside it: a gap says nothing of the record after it.
_OF_THE_RECORD = frozenset({Problem.BODY, Problem.LINK, Problem.ORDER, Problem.INDEX, Problem.MAC})
# Sequence numbers of damaged records that are remembered. Of a trail with more, nothing is evidence.
_MOST_DAMAGED = 100_000
_BLOCK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of the trail: from ``since`` on, and before ``until`` (None: to its end)."""

    since: datetime
    until: datetime | None

    def has(self, at_ms: int) -> bool:
        """Whether a record of this time belongs to it."""
        begins = at_ms >= int(self.since.timestamp() * 1000)
        return begins and (self.until is None or at_ms < int(self.until.timestamp() * 1000))

    def __str__(self) -> str:
        return f"{moment(self.since)} to {moment(self.until) if self.until else 'its end'}"


@dataclass(slots=True)
class Collected:
    """What went into a package."""

    findings: int = 0
    damaged: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def of(self, control: Control) -> dict[str, int]:
        """How many records of each type are evidence for ``control``, by type."""
        return {type_: count for type_, count in sorted(self.types.items()) if control.evidence(type_)}


class Package:
    """One package being written. A context manager: its files are closed at the end."""

    def __init__(self, directory: Path, framework: Framework, span: Span) -> None:
        """Makes the directory. Raises FileExistsError where there is one: evidence is not written over."""
        directory.mkdir(mode=0o700)
        (directory / "records").mkdir(mode=0o700)
        self._directory = directory
        self._framework = framework
        self._span = span
        self._open: dict[str, BinaryIO] = {}
        self._files = ExitStack()
        self._bad: dict[int, list[str]] = {}
        self.collected = Collected()

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def verified(self, findings: Iterable[Finding]) -> None:
        """Take in what verifying the whole trail found, before any record."""
        file = self._file("verification.jsonl")
        try:
            for finding in findings:
                self.collected.findings += 1
                told = {"sequence": finding.sequence, "problem": finding.problem.value, "detail": finding.detail}
                file.write(_line(told))
                if finding.problem in _OF_THE_RECORD and len(self._bad) <= _MOST_DAMAGED:
                    self._bad.setdefault(finding.sequence, []).append(finding.problem.value)
        except Tampered as unreadable:
            self.collected.findings += 1
            after = int(unreadable.metadata.get("after", "0"))
            file.write(_line({"sequence": after + 1, "problem": "UNREADABLE", "detail": unreadable.message}))

    def take(self, rows: Iterable[StoredRecord]) -> None:
        """Sort the records of the span into their files, as far as the trail can be read."""
        with suppress(Tampered):  # told by verified()
            for row in rows:
                self._sort(row)

    def _sort(self, row: StoredRecord) -> None:
        record = self._sound(row)
        if record is None:
            self._damaged(row)
        elif self._span.has(record.at_ms) and self._wanted(record.type):
            self._file(f"records/{record.type}.jsonl").write(row.body + b"\n")
            self.collected.types[record.type] += 1

    def close(self, facts: Mapping[str, Any]) -> None:
        """Write what it comes to, and last its manifest. ``facts`` are told in all of them."""
        controls = [self._told(each) for each in self._controls]
        self._file("controls.json").write(_document({**facts, "controls": controls}))
        self._file("README.md").write(self._readme(facts).encode())
        for file in self._open.values():
            file.flush()
            os.fsync(file.fileno())
        listed = [_listed(self._directory, name) for name in sorted(self._open)]
        self._file("manifest.json").write(_document({**facts, "files": listed}))

    @property
    def _controls(self) -> tuple[Control, ...]:
        return self._framework.controls

    def _wanted(self, type_: str) -> bool:
        return any(control.evidence(type_) for control in self._controls)

    def _sound(self, row: StoredRecord) -> Record | None:
        if row.seq in self._bad or len(self._bad) > _MOST_DAMAGED:
            return None
        try:
            return decode(row.body)
        except Tampered:
            return None

    def _damaged(self, row: StoredRecord) -> None:
        """What it says is no evidence, its time included; so it is told whatever the span."""
        self.collected.damaged += 1
        told = {
            "sequence": row.seq,
            "problems": self._bad.get(row.seq, []),
            "stored_base64": base64.b64encode(row.body).decode(),
        }
        self._file("damaged.jsonl").write(_line(told))

    def _file(self, name: str) -> BinaryIO:
        if name not in self._open:
            descriptor = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            self._open[name] = self._files.enter_context(os.fdopen(descriptor, "wb"))
        return self._open[name]

    def _told(self, control: Control) -> dict[str, Any]:
        counts = self.collected.of(control)
        return {
            "id": control.id,
            "name": control.name,
            "served": control.served or "Nothing here.",
            "notCovered": control.not_covered,
            "commands": list(control.commands),
            "eventTypes": list(control.events),
            "records": [{"type": type_, "count": n, "file": f"records/{type_}.jsonl"} for type_, n in counts.items()],
        }

    def _readme(self, facts: Mapping[str, Any]) -> str:
        framework, sums = self._framework, self.collected
        lines = [f"# Evidence: {framework.name} {framework.edition}", ""]
        lines += [
            f"Records of {self._span}, by {facts['by']}.",
            "",
            framework.extent,
            "",
            f"**The trail:** {facts['trail']}",
            "",
        ]
        if sums.damaged:
            lines += [f"{sums.damaged} records do not verify and count for nothing: `damaged.jsonl`.", ""]
        for control in self._controls:
            counts = sums.of(control)
            shown = ", ".join(f"{n} [{type_}](records/{type_}.jsonl)" for type_, n in counts.items())
            lines += [f"## {control.id} {control.name}", "", control.served or "Nothing here serves it.", ""]
            lines += [f"Records: {shown or ('none in this span' if control.events else 'none of any kind')}.", ""]
            if control.commands:
                lines += [f"To see it: {', '.join(f'`{each}`' for each in control.commands)}.", ""]
            lines += [f"Not covered: {control.not_covered}", ""]
        return "\n".join(lines)


def _listed(directory: Path, name: str) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    with (directory / name).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return {"name": name, "sha256": digest.hexdigest(), "bytes": size}


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _document(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
