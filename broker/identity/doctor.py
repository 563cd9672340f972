"""What is wrong with this SVID, all of it, in words.

Belongs here: the verdicts `broker doctor identity` prints. Where ``svid.py`` stops at the first broken rule,
this asks every rule, because TLS tells a refused client nothing. It decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import Bundles
from broker.identity.certificate import Facts
from broker.identity.svid import LEAF_RULES, bundle_of, one_canonical_id, read_intermediates, read_leaf, verify_chain

READABLE = "readable"
CHAIN = "chain"
_ONLY_TIME = {Reason.SVID_EXPIRED, Reason.SVID_NOT_YET_VALID}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says: nothing is wrong, or ``refusal``, with what else is known about the cause."""

    rule: str
    refusal: Unauthenticated | None = None
    remarks: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the rule is kept."""
        return self.refusal is None


def judge_svid(leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> list[Verdict]:
    """The verdict of every rule that can be asked, in the order the broker would ask.

    Arguments as for :func:`~broker.identity.svid.validate_x509_svid`. A leaf that cannot be read gets one
    verdict. A leaf with faults of its own gets none on its chain, unless time is its only fault: its
    chain is then judged within the leaf's time.
    """
    try:
        facts = read_leaf(leaf)
    except Unauthenticated as refusal:
        return [Verdict(READABLE, refusal)]
    verdicts = [Verdict(READABLE)]
    verdicts += [Verdict(_name(rule), _refusal(partial(rule, facts, now))) for rule in LEAF_RULES]
    if {verdict.refusal.reason for verdict in verdicts if verdict.refusal} <= _ONLY_TIME:
        within = min(max(now, facts.not_before), facts.not_after)
        verdicts.append(_judge_chain(facts, intermediates, bundles, within))
    return verdicts


def explain_svid(leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> list[str]:
    """Every reason why the broker would refuse this chain, in the order it would ask; empty if it would accept.

    Each text reads ``REASON: what is wrong. What to do.``, or is a remark about the one before it.
    """
    texts = []
    for verdict in judge_svid(leaf, intermediates, bundles, now):
        if verdict.refusal:
            texts += [f"{verdict.refusal.reason}: {verdict.refusal}", *verdict.remarks]
    return texts


def _judge_chain(leaf: Facts, intermediates: bytes, bundles: Bundles, at: datetime) -> Verdict:
    claimed = one_canonical_id(leaf)
    try:
        chain = read_intermediates(intermediates)
    except Unauthenticated as unreadable:
        return Verdict(CHAIN, unreadable)
    try:
        verify_chain(leaf, chain, bundle_of(claimed, bundles), at)
    except Unauthenticated as refusal:
        others = (
            f"The chain does lead to the bundle of {name}, which cannot speak for {claimed.trust_domain}."
            for name, bundle in bundles.items()
            if not _refusal(partial(verify_chain, leaf, chain, bundle, at))
        )
        return Verdict(CHAIN, refusal, (*_outdated(chain, at), *others))
    return Verdict(CHAIN)


def _outdated(chain: Sequence[Facts], at: datetime) -> Iterator[str]:
    for each in chain:
        if not each.not_before <= at <= each.not_after:
            window = f"{each.not_before.isoformat()} to {each.not_after.isoformat()}"
            yield f"An intermediate (sha256 {each.fingerprint[:16]}...) is valid only from {window}."


def _refusal(ask: Callable[[], object]) -> Unauthenticated | None:
    try:
        ask()
    except Unauthenticated as refusal:
        return refusal
    return None


def _name(rule: Callable[[Facts, datetime], None]) -> str:
    return rule.__name__.removeprefix("_check_").replace("_", " ")
