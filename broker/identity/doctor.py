"""What is wrong with this SVID, all of it, in words.

Belongs here: the explanation `broker doctor` prints. Where ``svid.py`` stops at the first broken rule,
this asks every rule, because TLS tells a refused client nothing. It decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial

from broker.errors import Reason, Unauthenticated
from broker.identity.bundle import Bundles
from broker.identity.certificate import Facts
from broker.identity.svid import LEAF_RULES, bundle_of, one_canonical_id, read_intermediates, read_leaf, verify_chain

_ONLY_TIME = {Reason.SVID_EXPIRED, Reason.SVID_NOT_YET_VALID}


def explain_svid(leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> list[str]:
    """Every reason why the broker would refuse this chain, in the order it would ask; empty if it would accept.

    Arguments as for :func:`~broker.identity.svid.validate_x509_svid`. Each text reads
    ``REASON: what is wrong. What to do.`` A leaf with faults of its own gets no verdict on its chain,
    unless time is its only fault: its chain is then judged within the leaf's time.
    """
    try:
        facts = read_leaf(leaf)
    except Unauthenticated as refusal:
        return [_text(refusal)]
    answers = (_refusal(partial(rule, facts, now)) for rule in LEAF_RULES)
    problems = [answer for answer in answers if answer]
    texts = [_text(problem) for problem in problems]
    if {problem.reason for problem in problems} <= _ONLY_TIME:
        texts += _explain_chain(facts, intermediates, bundles, min(max(now, facts.not_before), facts.not_after))
    return texts


def _explain_chain(leaf: Facts, intermediates: bytes, bundles: Bundles, at: datetime) -> Iterator[str]:
    claimed = one_canonical_id(leaf)
    try:
        chain = read_intermediates(intermediates)
    except Unauthenticated as unreadable:
        yield _text(unreadable)
        return
    try:
        verify_chain(leaf, chain, bundle_of(claimed, bundles), at)
    except Unauthenticated as refusal:
        yield _text(refusal)
        yield from _outdated(chain, at)
        for name, bundle in bundles.items():
            if not _refusal(partial(verify_chain, leaf, chain, bundle, at)):
                yield f"The chain does lead to the bundle of {name}, which cannot speak for {claimed.trust_domain}."


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


def _text(refusal: Unauthenticated) -> str:
    return f"{refusal.reason}: {refusal}"
