"""What a simulation must have seen, or it proves nothing: how often each hard state comes about at least."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.dealing import whole_rounds

# In a million steps; where they are more or fewer, in proportion. The rarest comes about twice as often, so that no
# seed is blind by luck: with 100 on average, fewer than 50 are five standard deviations away.
OFTEN = 50
SOMETIMES = (
    "killed",
    "stopped for longer than a claim",
    "cut off from the store",
    "cut off from the upstreams",
    "committed and not told",
    "word of a commit lost",
    "failed write",
    "disk full",
    "clock wrong",
    "outage",
    "late create",
    "lost reply",
    "reply that never comes",
    "lost confirmation",
    "granted for longer",
    "lie: revoked, and alive",
    "made after it was swept or given up",
    "swept, and again later",
    "everything suspended",
    "suspended while it was issued",
    "completed while asking",
    "ended by one while another issued it",
    "RequestCredential on two replicas at once",
    "RedeemAccessRequest on two replicas at once",
    "redeemed twice at once",
    "refused: PREVIOUS_ATTEMPT_LIVE",
    "refused: ACCESS_REQUEST_REDEEMED",
    "refused: CLOCK_DOUBTED",
    "refused: COMMIT_UNKNOWN",
    "refused: SELF_APPROVAL",
    "delivered",
)
# The same of what comes about in some kinds of world only, or seldom, much of it because the ledger is put back.
SELDOM = 1
IN_SOME = (
    "went on when its claims had run out",
    "ledger put back",
    "ledger put back beneath its brokers",
    "ended because the ledger was another one",
    "recovery entered",
    "recovery released",
    "witness away",
    "a witness has it and does not say so",
    "forgotten by a restore, and alive",
    "forgotten, and found by its mark",
    "refused: RECOVERY_MODE",
    "refused: WITNESS_UNREAD",
    "approval asked for what was handed on",
    "taken over from one that is dead",
    "off until its clock had caught up",
    "waited until its clock was believed",
    "glass broken",
    "an emergency reviewed",
    "refused: BREAK_GLASS_BLOCKED",
    "refused: BREAK_GLASS_RATE",
    "refused: REVIEW_OF_ONES_OWN",
    "glass broken for an agent's task",
    "an emergency ended: EXPIRED",
    "an emergency ended: RELEASED",
    "an emergency ended: SUSPENDED",
    "server's clock wrong",
    "server's clock set by an hour or years",
    "standby promoted",
    "standby with another time promoted",
    "the server's time heard too late",
    "clock doubted: FORWARDS",
    "clock doubted: BACKWARDS",
    "clock doubted: BEHIND",
    "started again to believe the server's clock",
    "a step executed",
    "a plan confirmed and rejected at once",
    "refused: PLAN_NOT_CONFIRMED",
    "refused: PLAN_REJECTED",
    "refused: PLAN_LAPSED",
    "refused: PLAN_EXCEEDED",
    "refused: PLAN_STEP_USED",
    "refused: PLAN_SAME_PRINCIPAL",
)
LEAST = dict.fromkeys(SOMETIMES, OFTEN) | dict.fromkeys(IN_SOME, SELDOM)
# In fewer steps, too little comes about for its number to say anything: it would be blind by luck.
JUDGED_FROM = 1_000_000


def not_judged(worlds: int, asked: int, *, dealt: bool) -> str:
    """Why nothing can be said about what was seen; empty: it can. ``asked``: for so many steps.

    ``dealt``: worlds of all kinds were.
    """
    if not dealt:
        return "not all kinds of world were asked for"
    if asked < JUDGED_FROM or not whole_rounds(worlds):
        return f"that many steps are too few for it; from {JUDGED_FROM} on it is"
    return ""


def too_seldom(told: Mapping[str, int], steps: int) -> list[str]:
    """What came about less often than it must in so many steps."""
    return [name for name, times in LEAST.items() if told.get(name, 0) < max(1, times * steps // 1_000_000)]
