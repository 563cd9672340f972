"""IAM in memory: inline policies of roles, the size limit, and whatever may happen to a write on its way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import botocore.exceptions

from broker.connectors.aws_iam import Role

ALL_INLINE = 10_240
ROLE_ID = "AROAEXAMPLEEXAMPLE000"


def client_error(code: str, status: int, headers: Mapping[str, str] | None = None) -> botocore.exceptions.ClientError:
    meta = {"HTTPStatusCode": status, "HTTPHeaders": dict(headers or {})}
    answer: Any = {"Error": {"Code": code, "Message": "canary-5up3r"}, "ResponseMetadata": meta}
    return botocore.exceptions.ClientError(answer, "PutRolePolicy")


def lost() -> botocore.exceptions.ReadTimeoutError:
    return botocore.exceptions.ReadTimeoutError(endpoint_url="https://iam.amazonaws.com")


@dataclass
class World:
    """What IAM holds, for any number of writers. ``late``: writes that were sent and have not arrived."""

    policies: dict[str, str] = field(default_factory=dict)
    role_id: str = ROLE_ID
    late: list[tuple[str, str]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)  # every call

    def land(self, number: int) -> None:
        """A write that was on its way arrives now."""
        name, document = self.late.pop(number)
        self.policies[name] = document

    def denied(self, user_id: str, issued: str = "2031-05-01T12:00:00Z") -> bool:
        """As AWS evaluates it: any statement of any policy (ISO times compare as texts)."""
        for document in self.policies.values():
            for statement in json.loads(document)["Statement"]:
                condition = statement.get("Condition", {})
                if user_id in condition.get("StringEquals", {}).get("aws:userid", ()):
                    return True
                if "DateLessThan" in condition and issued < condition["DateLessThan"]["aws:TokenIssueTime"]:
                    return True
        return False

    def size(self) -> int:
        return sum(len(each) for each in self.policies.values())


class FakeIam:
    """One writer's way to it. ``fates``: what becomes of its next writes (an error, or one of the words below)."""

    LANDED_UNSEEN, LATE = "landed, but no answer", "on its way, no answer"

    def __init__(self, world: World) -> None:
        self.world = world
        self.fates: list[str | Exception | None] = []
        self.down: Exception | None = None
        self.before_put: Callable[[], None] = lambda: None

    async def role(self, role: Role) -> Mapping[str, Any]:
        await self._call("GetRole")
        return {"RoleId": self.world.role_id, "Arn": role.arn}

    async def policies(self, role: Role) -> Mapping[str, Any]:
        await self._call("ListRolePolicies")
        return {name: json.loads(each) for name, each in self.world.policies.items()}

    async def policy(self, role: Role, name: str) -> Any | None:
        await self._call(f"GetRolePolicy {name}")
        found = self.world.policies.get(name)
        return None if found is None else json.loads(found)

    async def put(self, role: Role, name: str, document: str) -> None:
        await self._call(f"PutRolePolicy {name}")
        self.before_put()
        fate = self.fates.pop(0) if self.fates else None
        if isinstance(fate, Exception):
            raise fate
        grown = self.world.size() - len(self.world.policies.get(name, "")) + len(document)
        if grown > ALL_INLINE:
            raise client_error("LimitExceeded", 409)
        if fate == self.LATE:
            self.world.late.append((name, document))
            raise lost()
        self.world.policies[name] = document
        if fate == self.LANDED_UNSEEN:
            raise lost()

    async def delete(self, role: Role, name: str) -> None:
        await self._call(f"DeleteRolePolicy {name}")
        self.world.policies.pop(name, None)

    def close(self) -> None:
        pass

    async def _call(self, what: str) -> None:
        await asyncio.sleep(0)
        self.world.history.append(what)
        if self.down is not None:
            raise self.down
