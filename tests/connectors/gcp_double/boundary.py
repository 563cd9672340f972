"""Whether a Credential Access Boundary leaves a permission: the double's judge, written from the documentation.

Of the Common Expression Language it knows what the documentation of boundaries shows:
``resource.name.startsWith('X')``, ``resource.name == 'X'`` and
``api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('X')``, joined by ``||``.
Anything else is refused, as a real parser would refuse what it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_STARTS = re.compile(r"resource\.name\.startsWith\('([^'\\]*)'\)")
_EQUALS = re.compile(r"resource\.name == '([^'\\]*)'")
_PREFIX = re.compile(r"api\.getAttribute\('storage\.googleapis\.com/objectListPrefix', ''\)\.startsWith\('([^'\\]*)'\)")


def allows(
    boundary: Mapping[str, Any],
    roles: Mapping[str, frozenset[str]],
    permission: str,
    bucket: str,
    name: str,
    prefix: str,
) -> bool:
    """Whether some rule leaves ``permission`` on the object ``name``, or on a listing of ``prefix``."""
    place = f"projects/_/buckets/{bucket}" + (f"/objects/{name}" if name else "")
    for rule in boundary["accessBoundary"]["accessBoundaryRules"]:
        if rule["availableResource"] != f"//storage.googleapis.com/projects/_/buckets/{bucket}":
            continue
        left = {each.removeprefix("inRole:") for each in rule["availablePermissions"] if each.startswith("inRole:")}
        if not any(permission in roles.get(role, frozenset()) for role in left):
            continue
        condition = rule.get("availabilityCondition")
        if condition is None or any(_holds(term, place, prefix) for term in condition["expression"].split(" || ")):
            return True
    return False


def _holds(term: str, place: str, prefix: str) -> bool:
    if found := _STARTS.fullmatch(term):
        return place.startswith(found[1])
    if found := _EQUALS.fullmatch(term):
        return place == found[1]
    if found := _PREFIX.fullmatch(term):
        return prefix.startswith(found[1])
    raise AssertionError(f"the double cannot read the condition {term!r}")
