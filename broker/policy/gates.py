"""Gates: a ``forbid`` that names, in an ``@approval`` annotation, the approval that opens it.

Cedar knows no gates. What makes one is its own condition: ``unless { context.approvals.contains("NAME") }``, which
it must have, so that the engine alone says what an approval opens and no second reading of a policy does. An
approval is needed only where the very same request *with* it would be allowed; that is found by asking
the engine again. Belongs here: telling gates from other policies, and asking again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from broker.policy.decision import Decision, Effect

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)


def opening(policy: Mapping[str, Any]) -> str | None:
    """The approval that ``policy`` (Cedar's JSON policy format) names as what opens it; None where it is no gate.

    Empty for an annotation that says nothing.
    """
    annotations = policy.get("annotations", {})
    # A bare @approval is @approval(""), which the JSON format writes as null.
    return str(annotations["approval"] or "").strip() if "approval" in annotations else None


def gate_problem(policy: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with ``policy`` as a gate, with a hint; None for a sound gate, and for what is none.

    A sound gate is provably open while its approval is held: its condition is a conjunction of which one part
    is *exactly* that the approval is not held. Whether the other parts hold does not matter then; that one of them
    fails is a deny, as everywhere.
    """
    approval = opening(policy)
    if approval is None:
        return None
    if policy["effect"] != "forbid":
        return "has an @approval and permits", "An approval opens a forbid. Write a forbid, and a permit without it."
    if not _NAME.match(approval):
        hint = "Name one key of approvals.yaml: a-z 0-9 and -, at most 63. For two approvals write two forbids."
        return f"has the @approval {approval!a}", hint
    if {"kind": "unless", "body": _held(approval)} not in policy["conditions"]:
        clause = f'unless {{ context.approvals.contains("{approval}") }}'
        return f"would not open when {approval} is held", f"Give it the clause {clause}, by itself."
    return None


def _held(approval: str) -> dict[str, Any]:
    """``context.approvals.contains("APPROVAL")``."""
    approvals = {".": {"left": {"Var": "context"}, "attr": "approvals"}}
    return {"contains": {"left": approvals, "right": {"Value": approval}}}


def through_gates(
    first: Decision, held: frozenset[str], gates: Mapping[str, str], ask: Callable[[frozenset[str]], Decision]
) -> Decision:
    """What becomes of ``first``, a decision made with the approvals ``held``; ``ask`` decides with others.

    ``gates`` are the approvals by the id of the policy they open. NEEDS_APPROVAL where only gates stand in the way
    and the same request would be allowed with what they name; else ``first``, or an error that came to
    light on the way. Each round adds an approval, so there are no more rounds than gates.
    """
    missing: frozenset[str] = frozenset()
    fired: frozenset[str] = frozenset()
    decision = first
    while decision.effect is Effect.DENY and not decision.errors:
        named = {gates.get(policy) for policy in decision.policies}
        # Something else denies; or a gate that is not opened by what is held, which no sound gate does.
        if not named or None in named or named & (held | missing):
            return first
        missing |= frozenset(filter(None, named))
        fired |= frozenset(decision.policies)
        decision = ask(held | missing)
    if decision.errors:
        return replace(first, errors=decision.errors)
    if not missing:
        return first
    return replace(first, effect=Effect.NEEDS_APPROVAL, policies=tuple(sorted(fired)), approvals=tuple(sorted(missing)))
