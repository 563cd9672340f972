"""Planted bugs of pipelines; see ``bugs.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.plan import execution, plan
from broker.stores import citation_ops, plan_ops

Patch = pytest.MonkeyPatch


def plans_nobody_confirmed(patch: Patch) -> None:
    """A plan that is there is good enough."""
    patch.setattr(execution, "_check_confirmed", lambda plan, now: None)


def plans_without_end(patch: Patch) -> None:
    """What was confirmed once is so for ever."""
    patch.setattr(plan, "standing", lambda stored, deadline, now: stored)


def steps_serve_for_ever(patch: Patch) -> None:
    """Whether a step was used nobody asks."""
    patch.setattr(citation_ops, "_check_unused", lambda view, raw, own, reason, what: None)


def steps_are_free_when_they_end(patch: Patch) -> None:
    """What has ended is taken for what was never delivered."""
    patch.setattr(citation_ops, "came_to_nothing", lambda lease: lease.ended_at is not None)


def plans_bound_nothing(patch: Patch) -> None:
    """There is a plan, so whatever is asked for was planned."""
    patch.setattr(execution, "_check_within", lambda plan, action, asked, compared: None)


def who_plans_executes(patch: Patch) -> None:
    """Planner, validator and executor need not be three."""
    for module in (execution, plan_ops, citation_ops):
        patch.setattr(module, "require_other", lambda plan, party, role: None)


OF_PLANS: dict[str, Callable[[Patch], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        plans_nobody_confirmed,
        plans_without_end,
        steps_serve_for_ever,
        steps_are_free_when_they_end,
        plans_bound_nothing,
        who_plans_executes,
    )
}
