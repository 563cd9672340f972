"""Carries out the examination of a database engine at Vault or OpenBao: one question after another, nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from broker.connectors.vault_answers import object_in, text_in, texts_in
from broker.connectors.vault_calls import VaultCalls
from broker.connectors.vault_database_examine import (
    doubts_of_attempt_policy,
    doubts_of_connection,
    doubts_of_mount,
    doubts_of_role,
    doubts_of_token_role,
    rights,
)
from broker.connectors.vault_examine import (
    NOBODYS_LEASE,
    Rights,
    doubts_of_cluster,
    doubts_of_leases,
    doubts_of_mounts,
    doubts_of_token,
    not_told,
    unreachable,
)
from broker.connectors.vault_http import VaultFailure
from broker.ports.connectors import Doubt, Severity


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an examination. ``look`` raises VaultFailure."""

    what: str  # it is about, for where it cannot be told
    look: Callable[[], Iterator[Doubt]]
    absent: str = ""  # what it means that the server knows nothing there; empty: that it cannot be told


class DatabaseExaminer:
    """Blocking; each of :meth:`parts` is some exchanges, so that whoever gives up waits for one part at most."""

    def __init__(
        self, calls: VaultCalls, mount: str, token_role: str, prefix: str, ceiling: timedelta, *, logs_in: bool
    ) -> None:
        self._calls = calls
        self._mount = mount
        self._token_role = token_role
        self._prefix = prefix
        self._ceiling = ceiling
        self._logs_in = logs_in
        self._roles: tuple[str, ...] = ()
        self._own: tuple[str, ...] = ()
        self._root = False

    def first(self) -> tuple[list[Doubt], bool]:
        """What the server says of the broker, and whether there is any use in going on."""
        try:
            token = self._calls.own_token()
        except VaultFailure as failure:
            return [unreachable(failure)], False
        self._root, self._own = "root" in token.policies, token.policies
        return list(doubts_of_token(token, logs_in=self._logs_in)), True

    def parts(self) -> Sequence[Part]:
        """What else there is to look at, in this order."""
        role, mount = self._token_role, self._mount
        return (
            Part(
                "its roles end what they make",
                self._of_roles,
                f"Mount {mount} is not there, or a role, or the connection of one: nothing can be issued.",
            ),
            Part("the broker has the rights it needs, and no more", self._of_rights),
            Part("attempts may read one login and nothing else", self._of_attempts),
            Part("it is the cluster that leases were made at", lambda: doubts_of_cluster(self._calls)),
            Part("the broker is kept to its own leases", self._of_leases),
            Part("the broker is kept to its own mount", self._of_mounts),
            Part(
                f"token role {role} is set up right",
                self._of_token_role,
                f"There is no token role {role}: nothing can be issued.",
            ),
            Part(f"mount {mount} lets credentials live as long as is promised", self._of_mount),
        )

    def part(self, part: Part) -> list[Doubt]:
        """What one part finds."""
        try:
            return list(part.look())
        except VaultFailure as failure:
            if failure.status == 404 and part.absent:
                return [Doubt(Severity.ERROR, part.absent, "Set it up as the connector's page says.")]
            return [not_told(part.what, failure)]

    def _of_roles(self) -> Iterator[Doubt]:
        self._roles = texts_in(object_in(self._calls.read(f"{self._mount}/roles", list="true"), "data"), "keys")
        by_connection: dict[str, list[str]] = {}
        for name in self._roles:
            role = self._data(f"{self._mount}/roles/{name}")
            yield from doubts_of_role(name, role, self._ceiling)
            by_connection.setdefault(str(role.get("db_name")), []).append(name)
        for name, roles in by_connection.items():
            yield from doubts_of_connection(name, self._data(f"{self._mount}/config/{name}"), roles)

    def _of_rights(self) -> Iterator[Doubt]:
        if not self._root:  # of a root token everything is said already
            policies = {*self._own, *(self._prefix + role for role in self._roles)}
            wanted = rights(self._mount, self._token_role, self._roles, sorted(policies))
            yield from wanted.doubts(self._capabilities(wanted))

    def _capabilities(self, wanted: Rights) -> Mapping[str, frozenset[str]]:
        paths = list(wanted.paths())
        data = object_in(self._calls.write("sys/capabilities-self", {"paths": paths}), "data")
        return {path: frozenset(texts_in(data, path)) for path in paths}

    def _of_attempts(self) -> Iterator[Doubt]:
        for role in self._roles:
            name = self._prefix + role
            yield from doubts_of_attempt_policy(name, self._policy(name), f"{self._mount}/creds/{role}")

    def _policy(self, name: str) -> str | None:
        try:
            return text_in(self._data(f"sys/policies/acl/{name}"), "policy")
        except VaultFailure as failure:
            if failure.status == 404:
                return None
            raise

    def _of_leases(self) -> Iterator[Doubt]:
        if not self._root:
            tried = {"look at": self._lets("lookup"), "end": self._lets("revoke", sync=True)}
            yield from doubts_of_leases(tuple(word for word, lets in tried.items() if lets))

    def _lets(self, verb: str, **more: object) -> bool:
        """Whether this is let through for a lease that there is not; ending that ends nothing."""
        try:
            self._calls.write(f"sys/leases/{verb}", {"lease_id": NOBODYS_LEASE, **more})
        except VaultFailure as failure:
            if failure.status == 403:
                return False
            if failure.status != 400:
                raise
        return True

    def _of_mounts(self) -> Iterator[Doubt]:
        if not self._root:
            seen = object_in(self._data("sys/internal/ui/mounts"), "secret")
            yield from doubts_of_mounts(tuple(seen), self._mount)

    def _of_token_role(self) -> Iterator[Doubt]:
        role = self._data(f"auth/token/roles/{self._token_role}")
        yield from doubts_of_token_role(self._token_role, role, self._prefix, self._ceiling)

    def _of_mount(self) -> Iterator[Doubt]:
        yield from doubts_of_mount(self._mount, self._data(f"sys/mounts/{self._mount}/tune"), self._ceiling)

    def _data(self, path: str) -> Mapping[str, Any]:
        return object_in(self._calls.read(path), "data")
