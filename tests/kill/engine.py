"""What the upstream holds: tokens of attempts, and logins that live and die with them. Every change is logged first.

As OpenBao: a token's life is what was asked for, a login lives until its lease ends, ending a token ends its logins a
moment later, and by a queue of its own. A login that outlives its lease is nobody's idea here either.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.kill.intents import Noted
from tests.kill.upstream_log import Entry, UpstreamLog, What

MOUNT = "database"
ROLES = ("reader", "writer")
LONGEST_MS = 3_600_000  # a login's, until its end is set
QUEUED_SECONDS = 0.2  # until the logins of a token that ended have ended, too


class NoSuchToken(Exception):
    """It was never made, or has ended."""


@dataclass(slots=True)
class Token:
    """Of one attempt."""

    secret: str
    accessor: str
    attempt: str
    policy: str
    until_ms: int


@dataclass(slots=True)
class Login:
    """Of one attempt, read with its token."""

    lease: str
    username: str
    password: str
    attempt: str
    accessor: str
    issued_ms: int
    until_ms: int

    def left(self, now_ms: int) -> int:
        """Whole seconds, rounded down."""
        return max(0, self.until_ms - now_ms) // 1000


class Engine:
    """Safe from any thread. ``now_ms`` is the upstream's own clock."""

    def __init__(self, log: UpstreamLog, noted: Noted, now_ms: Callable[[], int]) -> None:
        self._log = log
        self._noted = noted
        self._now = now_ms
        self._lock = threading.Lock()
        self._tokens: dict[str, Token] = {}  # by secret
        self._by_accessor: dict[str, Token] = {}
        self._logins: dict[str, Login] = {}  # by lease id

    def make_token(self, attempt: str, policy: str, ttl: int) -> Token:
        """A token for ``ttl`` seconds."""
        intended = self._noted(attempt) is not None
        with self._lock:
            until = self._now() + 1000 * ttl
            token = Token(f"s.{secrets.token_hex(12)}", secrets.token_hex(12), attempt, policy, until)
            self._log.append(Entry(self._now(), What.TOKEN, token.accessor, attempt, until, intended=intended))
            self._tokens[token.secret] = self._by_accessor[token.accessor] = token
            return token

    def token(self, secret: str) -> Token:
        """Raises NoSuchToken."""
        with self._lock:
            token = self._tokens.get(secret)
            if token is None or token.until_ms <= self._now():
                raise NoSuchToken
            return token

    def make_login(self, token: Token, role: str) -> Login:
        """A login of ``role``. Raises NoSuchToken where the token ended meanwhile."""
        handle = self._noted(token.attempt)
        intended = handle is not None and handle.get("accessor") == token.accessor
        name = f"{token.attempt}-{secrets.token_hex(4)}"
        with self._lock:
            now = self._now()
            if token.secret not in self._tokens or token.until_ms <= now:
                raise NoSuchToken
            lease = f"{MOUNT}/creds/{role}/{secrets.token_hex(12)}"
            until = min(now + LONGEST_MS, token.until_ms)
            login = Login(lease, name, secrets.token_hex(16), token.attempt, token.accessor, now, until)
            self._log.append(Entry(now, What.LOGIN, lease, token.attempt, until, intended=intended))
            self._logins[lease] = login
            return login

    def shorten(self, lease: str, ttl: int) -> int | None:
        """Its seconds from now on, never beyond its token's; None: there is no such lease."""
        with self._lock:
            login = self._living(lease)
            if login is None:
                return None
            token = self._by_accessor.get(login.accessor)
            most = login.until_ms if token is None else token.until_ms
            login.until_ms = min(self._now() + 1000 * ttl, most)
            self._log.append(Entry(self._now(), What.LOGIN_SHORTENED, lease, login.attempt, login.until_ms))
            return -(-(login.until_ms - self._now()) // 1000)

    def find(self, lease: str) -> Login | None:
        """A living lease."""
        with self._lock:
            return self._living(lease)

    def listed(self, role: str) -> list[str]:
        """The ids of the living leases of ``role``, without their folder."""
        folder = f"{MOUNT}/creds/{role}/"
        with self._lock:
            return [
                each.removeprefix(folder)
                for each in list(self._logins)
                if each.startswith(folder) and self._living(each)
            ]

    def end_login(self, lease: str, why: str) -> None:
        """At once; what is not there is ended."""
        with self._lock:
            self._end_login(lease, why)

    def end_token(self, accessor: str) -> bool:
        """The token at once, its logins a little later. Whether it was there."""
        with self._lock:
            token = self._by_accessor.pop(accessor, None)
            if token is None or token.until_ms <= self._now():
                return False
            self._log.append(Entry(self._now(), What.TOKEN_ENDED, accessor, token.attempt, why="revoked"))
            del self._tokens[token.secret]
            hang_on = [each.lease for each in self._logins.values() if each.accessor == accessor]
        if hang_on:
            later = threading.Timer(QUEUED_SECONDS, self._end_with_token, (hang_on,))
            later.daemon = True
            later.start()
        return True

    def sweep(self) -> None:
        """End what is over by itself, as a server does now and then."""
        with self._lock:
            for lease in list(self._logins):
                self._living(lease)

    def _end_with_token(self, leases: list[str]) -> None:
        for lease in leases:
            self.end_login(lease, "its token ended")

    def _living(self, lease: str) -> Login | None:
        login = self._logins.get(lease)
        if login is not None and login.until_ms <= self._now():
            self._end_login(lease, "its time was over")
            return None
        return login

    def _end_login(self, lease: str, why: str) -> None:
        login = self._logins.pop(lease, None)
        if login is not None:
            self._log.append(Entry(self._now(), What.LOGIN_ENDED, lease, login.attempt, why=why))

    def living(self) -> Iterator[Login]:
        """Every living login."""
        with self._lock:
            return iter([login for lease in list(self._logins) if (login := self._living(lease)) is not None])
