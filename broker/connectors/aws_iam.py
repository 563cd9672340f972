"""What the broker asks of IAM about a target role, in threads: who it is, and its inline policies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.connectors.threads import Threads

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient


@dataclass(frozen=True, slots=True)
class Role:
    """A role, taken from its ARN (``arn:P:iam::ACCOUNT:role/path/NAME``)."""

    arn: str

    @property
    def account(self) -> str:
        """Its 12 digits."""
        return self.arn.split(":")[4]

    def elsewhere(self, told: Mapping[str, Any]) -> str | None:
        """Why what IAM told of a role of this name is not this role: it is of another account. None: it is this one.

        IAM's calls take no account: they are about that of whoever asks, where a role of the same name may be.
        """
        parts = str(told.get("Arn")).split(":")
        account = parts[4] if len(parts) > 5 else "none"
        if account == self.account:
            return None
        return f"{self.arn} is not in the account whose IAM the broker reaches, which is {account}"

    @property
    def name(self) -> str:
        """Without its path: IAM's calls take the name alone."""
        return self.arn.rpartition("/")[2]


class Iam:
    """IAM of several accounts: a client for each, made when it is first needed. Raises what the SDK raises."""

    def __init__(self, client: Callable[[str], IAMClient], threads: Threads) -> None:
        self._make = client
        self._threads = threads
        self._making = threading.Lock()
        self._clients: dict[str, IAMClient] = {}

    async def role(self, role: Role) -> Mapping[str, Any]:
        """What GetRole says of it."""
        return await self._threads.run(lambda: self._of(role).get_role(RoleName=role.name)["Role"])

    async def policies(self, role: Role) -> Mapping[str, Any]:
        """Its inline policies, by name, as JSON documents."""
        return await self._threads.run(lambda: self._policies(role))

    async def policy(self, role: Role, name: str) -> Any | None:
        """One of them; None where there is none of this name."""
        return await self._threads.run(lambda: self._policy(role, name))

    async def put(self, role: Role, name: str, document: str) -> None:
        """Write one, whatever it said before."""
        await self._threads.run(
            lambda: self._of(role).put_role_policy(RoleName=role.name, PolicyName=name, PolicyDocument=document)
        )

    async def delete(self, role: Role, name: str) -> None:
        """Delete one; that it is gone already is fine."""
        await self._threads.run(lambda: self._delete(role, name))

    async def simulated(self, role: Role, who: str, actions: Sequence[str], resource: str) -> Mapping[str, bool]:
        """Which of ``actions`` IAM says that ``who`` (an ARN, in the role's account) may do to ``resource``."""

        def ask() -> dict[str, bool]:
            answer = self._of(role).simulate_principal_policy(
                PolicySourceArn=who, ActionNames=list(actions), ResourceArns=[resource]
            )
            results = answer["EvaluationResults"]
            return {each["EvalActionName"]: each["EvalDecision"] == "allowed" for each in results}

        return await self._threads.run(ask)

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _of(self, role: Role) -> IAMClient:
        with self._making:
            if role.account not in self._clients:
                self._clients[role.account] = self._make(role.account)
            return self._clients[role.account]

    def _policies(self, role: Role) -> dict[str, Any]:
        pages = self._of(role).get_paginator("list_role_policies").paginate(RoleName=role.name)
        found = {name: self._policy(role, name) for page in pages for name in page["PolicyNames"]}
        return {name: document for name, document in found.items() if document is not None}

    def _policy(self, role: Role, name: str) -> Any | None:
        iam = self._of(role)
        try:
            return iam.get_role_policy(RoleName=role.name, PolicyName=name)["PolicyDocument"]
        except iam.exceptions.NoSuchEntityException:
            return None

    def _delete(self, role: Role, name: str) -> None:
        iam = self._of(role)
        try:
            iam.delete_role_policy(RoleName=role.name, PolicyName=name)
        except iam.exceptions.NoSuchEntityException:
            return
