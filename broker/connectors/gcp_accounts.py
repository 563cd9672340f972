"""The calls about service accounts: look at one, disable it, enable it, who may do what with it.

Each blocks for one or two requests and raises GcpFailure. Names are emails; the project ``-`` stands for the one that
the email tells (IAM API reference, "projects.serviceAccounts").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from broker.connectors.gcp_base import BaseCredential
from broker.connectors.gcp_http import GcpFailure, GcpTransport

_IAM = "https://iam.googleapis.com/v1/projects/-/serviceAccounts"


class Accounts:
    """Service accounts, as the broker's own credential sees them."""

    def __init__(self, base: BaseCredential, transport: GcpTransport) -> None:
        self._base = base
        self._transport = transport

    def disabled(self, email: str) -> bool:
        """Whether it is disabled, as the upstream says when asked."""
        told = self._call(email, "")
        if told.get("email") != email:
            raise GcpFailure("it answered with another service account", status=200)
        # A field of a protocol message that is false is left away.
        return told.get("disabled", False) is True

    def disable(self, email: str) -> None:
        """Disable it, and see that it is. "Existing access tokens for the service account are rejected"."""
        self._call(email, ":disable", {})
        if not self.disabled(email):
            raise GcpFailure("it said that the service account is disabled, and shows it enabled", status=200)

    def enable(self, email: str) -> None:
        """Enable it, and see that it is: what was made before, and has not ended, is accepted again."""
        self._call(email, ":enable", {})
        if self.disabled(email):
            raise GcpFailure("it said that the service account is enabled, and shows it disabled", status=200)

    def permitted(self, email: str, permissions: Sequence[str]) -> frozenset[str]:
        """Which of ``permissions`` the broker has on it."""
        told = self._call(email, ":testIamPermissions", {"permissions": list(permissions)}).get("permissions", [])
        return frozenset(each for each in told if isinstance(each, str))

    def user_keys(self, email: str) -> int:
        """How many keys somebody has made for it."""
        keys = self._call(email, "/keys?keyTypes=USER_MANAGED").get("keys", [])
        return len(keys) if isinstance(keys, list) else 1

    def bindings(self, email: str) -> list[dict[str, Any]]:
        """Who has which role on it."""
        bindings = self._call(email, ":getIamPolicy", {}).get("bindings", [])
        return [each for each in bindings if isinstance(each, dict)] if isinstance(bindings, list) else []

    def bucket_members(self, bucket: str) -> frozenset[str]:
        """Everybody who has any role on the bucket."""
        url = f"https://storage.googleapis.com/storage/v1/b/{quote(bucket, safe='')}/iam"
        bindings = self._asked(lambda token: self._transport.json(url, token)).get("bindings", [])
        members = [each.get("members", []) for each in bindings if isinstance(each, dict)]
        return frozenset(str(member) for each in members for member in each)

    def _call(self, email: str, what: str, body: dict[str, Any] | None = None) -> Any:
        url = f"{_IAM}/{quote(email, safe='@')}{what}"
        method = "GET" if body is None else "POST"
        return self._asked(lambda token: self._transport.json(url, token, method=method, body=body))

    def _asked(self, ask: Callable[[str], Any]) -> Any:
        try:
            return ask(self._base.token())
        except GcpFailure as failure:
            if failure.status == 401:
                self._base.forget()
            raise
