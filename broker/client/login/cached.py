"""The login that is kept on this machine, for reading: a file that only its owner can use, renewed while it can be.

Belongs here: the file (one for each issuer and application), and turning it into a token for a call. Two commands at
once renew it once: providers that rotate refresh tokens take a second use for theft, and end them all. Does not belong
here: what must not rest on it (``person.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.client.login.provider import Provider, discover
from broker.client.login.settings import LoginSettings, Surroundings
from broker.client.login.token_endpoint import OAuthError, Tokens, exchange
from broker.client.login.verifying import provider_keys, verified
from broker.errors import InvalidInput, Reason, Unauthenticated
from broker.identity.id_token import IdToken
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.secret import Secret

_VERSION = 1
_MOST_BYTES = 64 * 1024
# A token with less left may end on its way.
_LITTLE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file holds."""

    id_token: Secret
    refresh_token: Secret | None
    subject: str
    expires_at: datetime

    @classmethod
    def of(cls, id_token: IdToken, tokens: Tokens) -> Kept:
        """A login that was judged."""
        return cls(tokens.id_token, tokens.refresh_token, id_token.subject, id_token.expires_at)


def state_directory(environment: Mapping[str, str]) -> Path:
    """Where this program keeps state (XDG Base Directory Specification: relative paths are ignored)."""
    chosen = Path(environment.get("XDG_STATE_HOME", ""))
    return (chosen if chosen.is_absolute() else Path.home() / ".local" / "state") / "jit-broker"


class LoginCache:
    """The file of one issuer and one application."""

    def __init__(self, directory: Path, issuer: str, client_id: str) -> None:
        name = hashlib.sha256(json.dumps([issuer, client_id]).encode()).hexdigest()[:16]
        self.path = directory / f"login-{name}.json"
        self._whose = {"issuer": issuer, "client_id": client_id}

    def read(self) -> Kept | None:
        """What is kept; None if nothing is. Raises :class:`InvalidInput`, also for a file that others can use."""
        try:
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                self._check(os.fstat(file.fileno()))
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unfit(f"cannot be read: {error.strerror}") from None
        return self._parsed(data)

    def write(self, kept: Kept) -> None:
        """Replace what is kept, whole; mode 0600 in a directory of mode 0700. Raises :class:`InvalidInput`."""
        told = {
            **self._whose,
            "version": _VERSION,
            "subject": kept.subject,
            "expires_at": kept.expires_at.astimezone(UTC).isoformat(),
            "id_token": kept.id_token.reveal(),
            "refresh_token": None if kept.refresh_token is None else kept.refresh_token.reveal(),
        }
        try:
            self._make_directory()
            # A new file of mode 0600, in the same directory, so that it can take the other's place.
            descriptor, name = tempfile.mkstemp(prefix=".login-", dir=self.path.parent)
            try:
                with os.fdopen(descriptor, "w") as file:
                    json.dump(told, file)
                Path(name).replace(self.path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._unfit(f"cannot be written: {error.strerror}") from None

    def forget(self) -> None:
        """Nothing is kept any more; twice is the same as once."""
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among the commands of this person. Raises :class:`InvalidInput`."""
        lock = self.path.with_suffix(".lock")
        try:
            self._make_directory()
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unfit(f"cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make_directory(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if stat.S_IMODE(self.path.parent.stat().st_mode) & 0o077:
            self.path.parent.chmod(0o700)

    def _check(self, status: os.stat_result) -> None:
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise self._unfit("is not a file of yours")
        if mode & 0o077:
            raise self._unfit(f"may be used by others than its owner (mode {mode:04o})")

    def _parsed(self, data: bytes) -> Kept:
        try:
            said = parse_object(data) if len(data) <= _MOST_BYTES else {}
            if said.get("version") != _VERSION or any(said.get(name) != each for name, each in self._whose.items()):
                raise self._unfit("is not of this issuer and application, or of another version")
            refresh = said["refresh_token"]
            return Kept(
                Secret(said["id_token"]),
                None if refresh is None else Secret(refresh),
                str(said["subject"]),
                datetime.fromisoformat(said["expires_at"]).astimezone(UTC),
            )
        except (NotStrictJson, KeyError, TypeError, ValueError):
            raise self._unfit("does not hold a login") from None

    def _unfit(self, why: str) -> InvalidInput:
        return InvalidInput(
            Reason.CONFIG_INVALID,
            f"The cached login {self.path} {why}.",
            hint="`broker logout` removes it, and `broker login` makes a new one.",
            metadata={"file": str(self.path)},
        )


class CachedLogin:
    """A :class:`~broker.client.tokens.TokenSource` of what is kept."""

    def __init__(self, cache: LoginCache, settings: LoginSettings, world: Surroundings) -> None:
        self._cache = cache
        self._settings = settings
        self._world = world

    def token(self) -> str:
        """An ID token that is valid now, renewed if need be.

        Raises :class:`Unauthenticated` (LOGIN_REQUIRED), :class:`InvalidInput`, :class:`NotReady`
        (IDENTITY_PROVIDER_*).
        """
        kept = self._cache.read()
        if kept is None:
            raise _required("You are not logged in")
        if self._is_fit(kept):
            return kept.id_token.reveal()
        with self._cache.locked():
            # Whoever held the lock may have renewed it.
            kept = self._cache.read() or kept
            return (kept if self._is_fit(kept) else self._renewed(kept)).id_token.reveal()

    def close(self) -> None:
        """Nothing is held open."""

    def _is_fit(self, kept: Kept) -> bool:
        return self._world.now() + _LITTLE < kept.expires_at

    def _renewed(self, kept: Kept) -> Kept:
        ended = f"Your login ended at {kept.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        if kept.refresh_token is None:
            raise _required(ended)
        provider = discover(self._settings.issuer, self._world.http)
        # Before the refresh token is used: where the keys cannot be had, the new one would be lost.
        keys = provider_keys(self._world.http, provider)
        try:
            tokens = self._refreshed(provider, kept.refresh_token)
        except OAuthError as error:
            raise _required(f"{ended}, and the identity provider does not renew it ({error.code})") from None
        now = self._world.now()
        proven = verified(
            self._world.http, provider, self._settings.client_id, tokens.id_token, now, nonce=None, keys=keys
        )
        if proven.subject != kept.subject:
            # OpenID Connect Core 1.0, section 12.2: the same person, or it is no renewal.
            raise _required(f"{ended}, and what renewed it is another person's")
        # RFC 6749, 6: without a new one, the old one goes on.
        rotated = kept.refresh_token if tokens.refresh_token is None else tokens.refresh_token
        renewed = Kept.of(proven, Tokens(tokens.id_token, rotated))
        self._cache.write(renewed)
        return renewed

    def _refreshed(self, provider: Provider, refresh_token: Secret) -> Tokens:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()}
        return exchange(self._world.http, provider, {**form, "client_id": self._settings.client_id})


def revoke(kept: Kept, settings: LoginSettings, world: Surroundings) -> bool:
    """Have the provider end what would renew the login (RFC 7009); False if it cannot.

    Raises :class:`NotReady` (IDENTITY_PROVIDER_*), :class:`InvalidInput`.
    """
    provider = discover(settings.issuer, world.http)
    if not provider.revocation_endpoint or kept.refresh_token is None:
        return kept.refresh_token is None
    form = {"token": kept.refresh_token.reveal(), "token_type_hint": "refresh_token", "client_id": settings.client_id}
    return world.http.send(provider.revocation_endpoint, form) == 200


def _required(why: str) -> Unauthenticated:
    return Unauthenticated(Reason.LOGIN_REQUIRED, f"{why}.", hint="Run: broker login")
