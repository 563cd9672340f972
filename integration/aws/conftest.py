"""The evaluator, installed once."""

from __future__ import annotations

import pytest

from integration.aws.evaluator import install, missing_programs


@pytest.fixture(scope="session")
def installed() -> None:
    if missing := missing_programs():
        pytest.skip(f"{' and '.join(missing)} not found: the evaluator of IAM policies runs on Node.js")
    install()
