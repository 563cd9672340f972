"""Every seed, and every input that was ever a finding, through the targets that `make fuzz` goes on from."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import Unauthenticated
from broker.identity.svid import read_leaf
from tests.fuzz import targets
from tests.fuzz.seeds import FOUND, seeds
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")
SECONDS = 1.0  # of processor time, for one input, of the few KiB that our readers read at all


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_is_a_finding(target: str) -> None:
    inputs = seeds(target)
    assert len(inputs) >= 6

    for data in inputs:
        begun = time.thread_time()
        TARGETS[target](data)
        assert time.thread_time() - begun < SECONDS, data[:100]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(TARGETS)), st.binary(max_size=200))
def test_no_few_bytes_are_a_finding(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_findings_are_kept_for_targets_that_exist() -> None:
    assert {path.name for path in FOUND.iterdir() if path.is_dir()} <= set(TARGETS)


@pytest.mark.parametrize(
    ("target", "reader", "answer"),
    [
        ("spiffe_id", "SpiffeId.parse", KeyError("a bug")),
        ("x509_leaf", "read_leaf", ValueError("a bug")),
        ("x509_chain", "validate_x509_svid", IndexError("a bug")),
        ("jwt_token", "validate_jwt_svid", RecursionError("a bug")),
    ],
)
def test_a_reader_that_breaks_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, target: str, reader: str, answer: Exception
) -> None:
    def broken(*_: object) -> None:
        raise answer

    monkeypatch.setattr(f"tests.fuzz.targets.{reader}", broken)

    with pytest.raises(type(answer)):
        TARGETS[target](b"")


def test_a_reader_that_lets_something_through_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "LEAF_RULES", ())
    fake = targets.CA.svid("spiffe://Example.org/agent")
    assert read_leaf(fake.der).uris

    with pytest.raises(Unauthenticated):
        TARGETS["x509_leaf"](fake.der)
