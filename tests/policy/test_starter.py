"""The tests beside the policies that are shipped, run by the function that ``broker policy test`` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.cli.policy_trials import TrialSet, judged, never_decisive, trial_set
from broker.connectors.contracts import CONTRACTS
from broker.deployfiles.kinds import GRANTS
from tests.deployfiles.test_broken import private_copy
from tests.house.project import ROOT

SETS = sorted(path.parent.parent for path in (ROOT / "deploy").glob("*/policies/*.test.yaml"))


@pytest.fixture(params=SETS, ids=lambda path: path.name)
def shipped(request: pytest.FixtureRequest, tmp_path: Path) -> TrialSet:
    return trial_set(private_copy(request.param, tmp_path / "set"))


def test_every_shipped_set_has_tests() -> None:
    assert {path.parent for path in (ROOT / "deploy").glob("*/policies")} == set(SETS) != set()


def test_every_test_passes(shipped: TrialSet) -> None:
    assert [(each.test.name, each.outcome) for each in judged(shipped) if not each.passed] == []


def test_every_policy_decides_in_a_test(shipped: TrialSet) -> None:
    assert never_decisive(shipped, judged(shipped)) == ()


def test_every_kind_of_connector_has_its_contract_class() -> None:
    assert CONTRACTS.keys() == GRANTS.keys()
