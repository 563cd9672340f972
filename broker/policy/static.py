"""Credentials that only rotation ends (STATIC): denied, unless a permit says that it means them.

A credential of every other class is over by itself. One of this is not, so that a broad ``permit``, written before
there was a connector of this class, must not cover it: of such a request only permits count that carry the
annotation ``@permits("STATIC")``. That is no policy, which a set could be without, but part of how every set is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.lease.credential import ContractClass

PERMITS = "permits"


def permits_static(policy: Mapping[str, Any]) -> bool:
    """Whether ``policy`` (Cedar's JSON policy format) is a permit that means static credentials, too."""
    return policy["effect"] == "permit" and _annotated(policy) == ContractClass.STATIC


def permits_problem(policy: Mapping[str, Any]) -> tuple[str, str] | None:
    """What is wrong with the annotation of ``policy``, with a hint; None where nothing is."""
    said = _annotated(policy)
    if said is None:
        return None
    if policy["effect"] != "permit":
        return f"has @{PERMITS} and forbids", f"Take @{PERMITS} away: it is for permits."
    if said != ContractClass.STATIC:
        return f"has @{PERMITS}({said!a})", f'The one thing that has to be permitted by name is @{PERMITS}("STATIC").'
    return None


def _annotated(policy: Mapping[str, Any]) -> str | None:
    annotations = policy.get("annotations", {})
    # A bare @permits is @permits(""), which the JSON format writes as null.
    return str(annotations[PERMITS] or "") if PERMITS in annotations else None
