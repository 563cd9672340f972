"""The measurement of verification verifies a whole trail, and a damaged one would be told."""

from __future__ import annotations

from pathlib import Path

from bench import audit_trail


def test_what_is_measured_is_a_whole_trail_with_checkpoints_and_a_witness(tmp_path: Path) -> None:
    audit_trail.write(tmp_path, 20_001)
    made = audit_trail.verify(tmp_path)
    assert (made.records, made.findings) == (20_001, 0)
    assert made.per_second > 0
    export = tmp_path / "export.jsonl"
    export.write_bytes(export.read_bytes().replace(b'"to":"ACTIVE"', b'"to":"REVOKE"', 1))
    assert audit_trail.verify(tmp_path).findings > 0
