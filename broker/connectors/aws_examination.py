"""Examining target roles: asking IAM what ``aws_examine_role.py`` judges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broker.connectors.aws_examine_role import (
    NEEDED,
    ON_BOUNDARY,
    ON_ROLE,
    boundary_of,
    doubts_of_rights,
    doubts_of_role,
    not_told,
    nothing_named,
    unreadable,
)
from broker.connectors.aws_failures import FAILURES, told
from broker.connectors.aws_iam import Iam, Role
from broker.connectors.threads import being_replaced
from broker.ports.connectors import Doubt


@dataclass(frozen=True, slots=True)
class Examiner:
    """Looks at roles. ``revoker``: the name of the role that the broker assumes in each account to write there."""

    connector: str
    iam: Iam
    partition: str
    external_id: str | None
    revokes: bool
    revoker: str | None
    closed: Callable[[], bool] = lambda: False  # whoever replaces a connector waits for calls under way

    async def examine(self, roles: Collection[Role], identity: Mapping[str, Any]) -> Sequence[Doubt]:
        """All doubts about ``roles``; ``identity``: the answer of GetCallerIdentity. Does not raise for AWS's doing."""
        if not roles:
            return [nothing_named()] if self.revokes else []
        broker = await self._broker(str(identity.get("Arn", "")))
        found: list[Doubt] = []
        for role in sorted(roles, key=lambda each: each.arn):
            if self.closed():
                return [being_replaced()]
            found.extend(await self._of(role, broker))
        return found

    async def _of(self, role: Role, broker: str) -> Sequence[Doubt]:
        try:
            answer = await self.iam.role(role)
        except FAILURES as error:
            return [unreadable(role.arn, told(error, self.connector, "look at it").message)]
        found = [*doubts_of_role(answer, broker, external_id=self.external_id, revokes=self.revokes)]
        if not self.revokes:
            return found
        who = broker if self.revoker is None else f"arn:{self.partition}:iam::{role.account}:role/{self.revoker}"
        try:
            allowed = await self.iam.simulated(role, who, [*NEEDED, *ON_ROLE], role.arn)
            boundary = boundary_of(answer)
            widening = [action for action in ON_ROLE if allowed.get(action, False)]
            if boundary is not None:
                on_boundary = await self.iam.simulated(role, who, [*ON_BOUNDARY], boundary)
                widening += [action for action in ON_BOUNDARY if on_boundary.get(action, False)]
        except FAILURES as error:
            return [*found, not_told(role.arn, told(error, self.connector, "ask IAM to simulate").message)]
        return [*found, *doubts_of_rights(role.arn, who, allowed, widening)]

    async def _broker(self, arn: str) -> str:
        """``arn:P:sts::A:assumed-role/NAME/SESSION`` as IAM names the role; its path is only known to IAM."""
        parts = arn.split(":", 5)
        if len(parts) != 6 or not parts[5].startswith("assumed-role/"):
            return arn if len(parts) == 6 else "arn:aws:iam::000000000000:unknown"
        plain = f"arn:{parts[1]}:iam::{parts[4]}:role/{parts[5].split('/')[1]}"
        try:
            known = (await self.iam.role(Role(plain))).get("Arn")
        except FAILURES:
            return plain
        return known if isinstance(known, str) else plain
