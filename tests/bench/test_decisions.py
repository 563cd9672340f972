"""The measurement of decisions measures what it says: 500 policies, nothing from memory, every kind of answer."""

from __future__ import annotations

import pytest

from bench import decisions
from broker.policy import cedar


def test_there_are_so_many_policies_and_no_two_requests_are_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    decided = decisions.policies()
    assert len(decided) == decisions.POLICIES
    asked = 0
    real = cedar.cedarpy.is_authorized

    def counted(*arguments: object, **more: object) -> object:
        nonlocal asked
        asked += 1
        return real(*arguments, **more)

    monkeypatch.setattr(cedar.cedarpy, "is_authorized", counted)
    requests = list(decisions.requests(32))
    gated = [decided.decide(each) for each in requests if each.scope.access != "read"]
    # One in eight, evaluated by what is about all without and with the approval, and once by what is about its account,
    # where no policy reads approvals.
    assert ({each.effect.value for each in gated}, len(gated), asked) == ({"NEEDS_APPROVAL"}, 4, 12)
    for each in requests:
        if each.scope.access == "read":
            assert decided.decide(each).allowed
    assert asked == 12 + 56


@pytest.mark.slow
def test_the_figures_are_of_all_requests() -> None:
    made = decisions.measure(16)
    assert made.by_effect == {"ALLOW": 14, "DENY": 0, "NEEDS_APPROVAL": 2}
    assert 0 < made.p50_ms <= made.p99_ms
