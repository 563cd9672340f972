"""What connectors ask of Vault or OpenBao, call by call: typed in, typed and checked out.

Each function is one exchange, blocking, made through hvac; each raises :class:`VaultFailure` and
nothing else. An answer that lacks what it must hold is a failure with unknown outcome (faults.md F8:
half an object), never a value with holes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import urllib3
from hvac.api import SystemBackend
from hvac.api.auth_methods import Token
from hvac.api.secrets_engines import Database

from broker.connectors.vault_answers import half, integer_in, object_in, text_in, texts_in, time_in
from broker.connectors.vault_http import Known, VaultAdapter, VaultFailure, open_pool
from broker.connectors.vault_login import JwtLogin, LoggedIn
from broker.errors import BrokerError
from broker.scope.canonical import JsonValue
from broker.secret import Secret

# A UUID has 36 characters; what is longer is none, and is not put into every handle.
_LONGEST_CLUSTER_ID = 64
# How the broker has its own token: from where it is kept, at every call, or by logging in.
BrokerToken = Callable[[], Secret] | JwtLogin


@dataclass(frozen=True, slots=True)
class AttemptToken:
    """The token one attempt reads its secret with, as the server described it."""

    token: Secret
    accessor: str
    policies: tuple[str, ...]
    ttl: int  # seconds
    renewable: bool
    orphan: bool
    kind: str


@dataclass(frozen=True, slots=True)
class WrappingToken:
    """What unwraps something, once."""

    token: Secret
    accessor: str
    ttl: int  # seconds


@dataclass(frozen=True, slots=True)
class OwnToken:
    """The broker's own token, as the server describes it."""

    policies: tuple[str, ...]  # those of its identity, where it has one, among them
    renewable: bool
    ends: bool  # False: it has no end
    orphan: bool


@dataclass(frozen=True, slots=True)
class Login:
    """A database login, and the lease that ends it."""

    lease_id: str
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """A living lease. ``age`` is by the server's own clock, to about a second."""

    lease_id: str
    age: timedelta


class VaultCalls:
    """The calls, with the broker's token unless said otherwise. Safe to use from several threads.

    ``token`` is asked before every call, so that a rotated token is used at once; or it is a login that keeps
    itself fresh. ``timeout`` is for connecting and for each read, in seconds. ``namespace``: of every path.
    """

    def __init__(
        self,
        address: str,
        token: BrokerToken,
        *,
        timeout: float,
        threads: int,
        ca_file: str | None = None,
        namespace: str = "",
    ) -> None:
        self._namespace = namespace
        self._address = address
        self._token = token
        self._timeout = timeout
        self._pool: urllib3.PoolManager = open_pool(threads, ca_file)

    def create_token(
        self, token_role: str, policy: str, ttl: int, display_name: str, meta: Mapping[str, str]
    ) -> AttemptToken:
        """A service token of its own (orphan by its token role) that lives ``ttl`` seconds and cannot be renewed."""
        answer = _api(Token, self._ours()).create(
            role_name=token_role,
            policies=[policy],
            ttl=f"{ttl}s",
            explicit_max_ttl=f"{ttl}s",
            renewable=False,
            no_default_policy=True,
            type="service",
            display_name=display_name,
            meta=dict(meta),
        )
        auth = object_in(answer, "auth")
        return AttemptToken(
            token=Secret(text_in(auth, "client_token")),
            accessor=text_in(auth, "accessor"),
            policies=texts_in(auth, "policies"),
            ttl=integer_in(auth, "lease_duration"),
            renewable=auth.get("renewable") is not False,
            orphan=auth.get("orphan") is True,
            kind=text_in(auth, "token_type"),
        )

    def read_login(self, mount: str, role: str, token: Secret) -> Login:
        """A fresh login of ``role``, read with the attempt's ``token``."""
        answer = _api(Database, self._adapter(token)).generate_credentials(role, mount_point=mount)
        data = object_in(answer, "data")
        return Login(text_in(answer, "lease_id"), text_in(data, "username"), Secret(text_in(data, "password")))

    def set_lease_end(self, lease_id: str, ttl: int) -> int:
        """Make the lease, and the login's VALID UNTIL, end ``ttl`` seconds from now; what the server made of it.

        Renewal counts the increment from now and *replaces* the remaining time (expiration.go, Renew).
        """
        return integer_in(_api(SystemBackend, self._ours()).renew_lease(lease_id, increment=ttl), "lease_duration")

    def revoke_lease(self, lease_id: str) -> None:
        """End the login before answering. Gone already, or never there, is success: it proves nothing."""
        # hvac's revoke_lease has no ``sync``, and a queued revocation is no revocation.
        self._ours().put("/v1/sys/leases/revoke", json={"lease_id": lease_id, "sync": True})

    def revoke_accessor(self, accessor: str) -> bool:
        """End a token; nothing can be made with it any more. Its leases end later, if all goes well.

        Whether it was alive until now, as far as the server tells: OpenBao warns of one that it does not find, others
        say that the accessor is invalid.
        """
        try:
            answer = _api(Token, self._ours()).revoke_accessor(accessor)
        except VaultFailure as failure:
            if not failure.says_only("invalid accessor"):
                raise
            return False
        return not answer.get("warnings")

    def wrap(self, body: Mapping[str, JsonValue], ttl: int) -> WrappingToken:
        """Keep ``body`` for one reader, ``ttl`` seconds at most. Needs ``update`` on sys/wrapping/wrap."""
        answer = _api(SystemBackend, self._ours()).wrap(payload=dict(body), ttl=ttl)
        told = object_in(answer, "wrap_info")
        return WrappingToken(Secret(text_in(told, "token")), text_in(told, "accessor"), integer_in(told, "ttl"))

    def own_token(self) -> OwnToken:
        """What the server says of the broker's own token. Needs ``read`` on auth/token/lookup-self."""
        data = object_in(_api(Token, self._ours()).lookup_self(), "data")
        of_identity = texts_in(data, "identity_policies") if data.get("identity_policies") else ()
        return OwnToken(
            policies=(*texts_in(data, "policies"), *of_identity),
            renewable=data.get("renewable") is True,
            ends=data.get("expire_time") is not None,
            orphan=data.get("orphan") is True,
        )

    def cluster_id(self) -> str:
        """The id that the server's storage was made with; empty where it tells none. Needs no token.

        sys/health is of the root namespace alone. A standby answers it as well, about its cluster; one that is sealed,
        or a disaster-recovery secondary, is a failure: it ends nothing.
        """
        anonymous = VaultAdapter(self._pool, self._address, None, timeout=self._timeout)
        query = {"standbyok": "true", "perfstandbyok": "true"}
        told = anonymous.request("get", "/v1/sys/health", params=query).get("cluster_id")
        return told if isinstance(told, str) and len(told) <= _LONGEST_CLUSTER_ID else ""

    def renew_own(self) -> None:
        """Give the broker's own token its period again; a token that has no end, or takes no renewal, is left alone.

        A login is made anew instead, once half of its life is over.
        """
        if isinstance(self._token, JwtLogin):
            self._token.keep(self._adapter(None))
            return
        data = object_in(_api(Token, self._ours()).lookup_self(), "data")
        if data.get("renewable") is True and data.get("expire_time") is not None:
            _api(Token, self._ours()).renew_self()

    def find_lease(self, lease_id: str) -> LeaseFacts | None:
        """The lease if it lives; None only if the server itself says that it is no (longer a) lease."""
        try:
            answer = _api(SystemBackend, self._ours()).read_lease(lease_id)
        except VaultFailure as failure:
            if failure.status == 400 and failure.says_only("invalid lease"):
                return None
            raise
        data = object_in(answer, "data")
        if text_in(data, "id") != lease_id:
            raise half("id")
        # The server tells when the lease ends and in how many seconds that is, hence its own present.
        present = time_in(data, "expire_time") - timedelta(seconds=integer_in(data, "ttl"))
        return LeaseFacts(lease_id, present - time_in(data, "issue_time"))

    def write(self, path: str, body: Mapping[str, object], token: Secret | None = None) -> Mapping[str, Any]:
        """The answer to ``body``, with the attempt's ``token`` or else the broker's own."""
        adapter = self._ours() if token is None else self._adapter(token)
        return adapter.request("post", f"/v1/{path}", json=dict(body))

    def read(self, path: str, token: Secret | None = None, **query: str) -> Mapping[str, Any]:
        """What lies at ``path``, with the attempt's ``token`` or else the broker's own."""
        adapter = self._ours() if token is None else self._adapter(token)
        return adapter.request("get", f"/v1/{path}", params=query)

    def list_roles(self, mount: str, kind: str = "creds") -> tuple[str, ...]:
        """The roles of ``mount`` that have living leases; ``kind``: the path that these are made at."""
        return tuple(key.rstrip("/") for key in self._list(f"{mount}/{kind}"))

    def list_leases(self, mount: str, role: str, kind: str = "creds") -> tuple[str, ...]:
        """The ids of all living leases of ``role``."""
        folder = f"{mount}/{kind}/{role}"
        return tuple(f"{folder}/{key}" for key in self._list(folder))

    def _list(self, folder: str) -> tuple[str, ...]:
        """What lies in a folder of leases.

        An empty folder is a 404 whose body is exactly ``{"errors": []}``; any other 404 may come from
        something in front of the server and proves nothing.
        """
        try:
            answer = _api(SystemBackend, self._ours()).list_leases(folder)
        except VaultFailure as failure:
            if failure.status == 404 and failure.says_nothing:
                return ()
            raise
        return texts_in(object_in(answer, "data"), "keys")

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.clear()

    def own_secret(self) -> Secret:
        """The broker's own token: the login in force, or what lies where it is kept. Raises VaultFailure."""
        if isinstance(self._token, JwtLogin):
            return self._token.token(self._adapter(None))
        failure = None
        try:
            token = self._token()
        except (BrokerError, OSError, ValueError) as error:
            failure = VaultFailure(Known.NOT_SENT, f"the broker's own token cannot be read ({type(error).__name__})")
        if failure is not None:
            raise failure
        return token

    def _ours(self) -> VaultAdapter:
        if isinstance(self._token, JwtLogin):
            return LoggedIn(self._adapter(None), self._token)
        return self._adapter(self.own_secret())

    def _adapter(self, token: Secret | None) -> VaultAdapter:
        return VaultAdapter(self._pool, self._address, token, timeout=self._timeout, namespace=self._namespace)


def _api(kind: Callable[[VaultAdapter], Any], adapter: VaultAdapter) -> Any:
    """One of hvac's API classes; its stubs leave arguments and results untyped, hence the checks below."""
    return kind(adapter)
