"""deploy/aws/ is in Terraform's form, and its syntax holds. More needs AWS's provider, which needs the network."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def formatted(directory: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("terraform") is None:
        pytest.skip("terraform not found")
    command = ["terraform", "fmt", "-check", "-recursive", "-no-color", str(directory)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def test_the_modules_are_formatted_and_parse() -> None:
    found = formatted(ROOT / "deploy" / "aws")
    assert (found.returncode, found.stdout) == (0, ""), found.stderr


def test_what_does_not_parse_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "broken.tf").write_text('resource "aws_iam_role" {\n')
    assert formatted(tmp_path).returncode != 0
