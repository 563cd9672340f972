"""What the double holds true: accounts, tokens, who may do what. No HTTP here."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.connectors.gcp_double.boundary import allows

MANAGE = ("get", "getAccessToken", "disable", "enable", "getIamPolicy")
LONGEST = timedelta(hours=1)
# What the roles that tests use hold of the permissions that the double knows.
ROLES: Mapping[str, frozenset[str]] = {
    "roles/storage.objectViewer": frozenset({"storage.objects.get", "storage.objects.list"}),
    "roles/storage.objectCreator": frozenset({"storage.objects.create"}),
    "roles/storage.admin": frozenset(
        {"storage.objects.get", "storage.objects.list", "storage.objects.create", "storage.buckets.getIamPolicy"}
    ),
}


@dataclass
class Account:
    """A service account; ``rights``: what which principal may do with it (``iam.serviceAccounts.X``)."""

    email: str
    disabled: bool = False
    user_keys: int = 0
    rights: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Token:
    """An access token: whose, until when, and what is left of its rights."""

    principal: str
    ends: datetime
    boundary: Mapping[str, Any] | None = None


class Refusal(Exception):
    """An answer that is not 200, in the form of Google's APIs, or of the token endpoint."""

    def __init__(self, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


@dataclass
class Mishap:
    """Goes wrong for the next call whose path ends with ``of``.

    ``refuse``: answer so, do nothing. ``lose``: do it, and close without an answer. ``change``: of the answer.
    ``before`` is called first: to hang, or to move the clock.
    """

    of: str
    refuse: Refusal | None = None
    lose: bool = False
    change: Callable[[dict[str, Any]], object] | None = None
    before: Callable[[], object] | None = None


class Cloud:
    """Everything that is there. Tests look into it, connectors only ask by HTTP."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.accounts: dict[str, Account] = {}
        self.tokens: dict[str, Token] = {}
        self.buckets: dict[str, dict[str, set[str]]] = {}  # of each: principal, roles
        self.objects: dict[str, set[str]] = {}
        self.mishaps: deque[Mishap] = deque()
        self.calls: list[str] = []
        self.trusted: Callable[[str, str], str] = _trusts_nobody

    def account(self, email: str, *, manager: str = "", disabled: bool = False) -> Account:
        """Make one; ``manager`` may do with it what the broker has to."""
        made = Account(email, disabled=disabled)
        if manager:
            made.rights[manager] = {f"iam.serviceAccounts.{each}" for each in MANAGE} | {"iam.serviceAccountKeys.list"}
        self.accounts[email] = made
        return made

    def bucket(self, name: str, objects: Sequence[str], members: Mapping[str, Sequence[str]]) -> None:
        """Make one; ``members``: roles by principal."""
        self.objects[name] = set(objects)
        self.buckets[name] = {who: set(roles) for who, roles in members.items()}

    # ------------------------------------------------------------------ tokens

    def issue(self, principal: str, life: timedelta, boundary: Mapping[str, Any] | None = None) -> str:
        """A new token."""
        text = f"ya29.{secrets.token_urlsafe(24)}"
        self.tokens[text] = Token(principal, self.now() + life, boundary)
        return text

    def bearer(self, text: str) -> Token:
        """Who asks. 401 for what is unknown or over, and for a token of an account that is disabled now."""
        token = self.tokens.get(text)
        if token is None or self.now() >= token.ends or self._disabled(token.principal):
            raise Refusal(401, "UNAUTHENTICATED")
        return token

    def _disabled(self, principal: str) -> bool:
        account = self.accounts.get(principal.removeprefix("serviceAccount:"))
        return account is not None and account.disabled

    def federate(self, subject_token: str, audience: str) -> tuple[str, int]:
        """A federated token of an hour for a JWT that the provider trusts."""
        try:
            principal = self.trusted(subject_token, audience)
        except ValueError:
            raise Refusal(400, "invalid_grant") from None
        return self.issue(principal, LONGEST), 3600

    def downscope(self, subject_token: str, boundary: Mapping[str, Any]) -> str:
        """The same token with a boundary; it ends when its source does."""
        rules = boundary.get("accessBoundary", {}).get("accessBoundaryRules")
        if not rules or len(rules) > 10:
            raise Refusal(400, "invalid_request")
        source = self.tokens.get(subject_token)
        if source is None or self.now() >= source.ends or self._disabled(source.principal):
            raise Refusal(400, "invalid_grant")
        return self.issue(source.principal, source.ends - self.now(), boundary)

    # ------------------------------------------------------------------ service accounts

    def may(self, token: Token, email: str, right: str) -> Account:
        """The account, where ``token`` has the right on it. 404, 403."""
        account = self.accounts.get(email)
        if account is None:
            raise Refusal(404, "NOT_FOUND")
        if token.boundary is not None or right not in account.rights.get(token.principal, set()):
            raise Refusal(403, "PERMISSION_DENIED")
        return account

    def generate(self, token: Token, email: str, seconds: int, scopes: Sequence[str]) -> tuple[str, datetime]:
        """generateAccessToken."""
        account = self.may(token, email, "iam.serviceAccounts.getAccessToken")
        if account.disabled:
            raise Refusal(400, "FAILED_PRECONDITION")
        if not scopes or not 1 <= seconds <= LONGEST.total_seconds():
            raise Refusal(400, "INVALID_ARGUMENT")
        text = self.issue(f"serviceAccount:{email}", timedelta(seconds=seconds))
        # expireTime is a whole second; here the token lives until then, and not for a fraction longer or shorter.
        ends = self.tokens[text].ends
        ends = ends.replace(microsecond=0) + timedelta(seconds=1 if ends.microsecond else 0)
        self.tokens[text] = Token(f"serviceAccount:{email}", ends)
        return text, ends

    # ------------------------------------------------------------------ storage

    def storage(self, token: Token, permission: str, bucket: str, name: str = "", prefix: str = "") -> None:
        """Raises 404, 403 unless the principal may, and its boundary leaves it."""
        if bucket not in self.buckets:
            raise Refusal(404, "NOT_FOUND")
        roles = self.buckets[bucket].get(token.principal, set())
        if not any(permission in ROLES[role] for role in roles):
            raise Refusal(403, "PERMISSION_DENIED")
        if token.boundary is not None and not allows(token.boundary, ROLES, permission, bucket, name, prefix):
            raise Refusal(403, "PERMISSION_DENIED")


def _trusts_nobody(token: str, audience: str) -> str:
    raise ValueError("no provider was set up")
