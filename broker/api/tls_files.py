"""TLS material from PEM files: read with suspicion, and again whenever they change.

Belongs here: the two origins that are files, and opening a file only if nobody else could read (a key) or
write (anything) it. What the material must be like is ``tls_material.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from broker.api.tls_material import ServerIdentity, server_identity
from broker.errors import InvalidInput, Reason
from broker.files.guarded import Unfit, read_bytes
from broker.identity.bundle import TrustBundle
from broker.ports.clock import Clock, by_either

MAX_FILE_BYTES = 1024 * 1024
_HINT = "Write TLS files whole, beside their place, and rename them into it."


@dataclass(frozen=True, slots=True)
class IdentityFiles:
    """The broker's own SVID: the leaf and its intermediates in one file, the key in another."""

    certificate: Path
    key: Path
    trust_domain: str
    clock: Clock

    def signature(self) -> object:
        """What ``stat`` says of both."""
        return _stat(self.certificate), _stat(self.key)

    def load(self) -> ServerIdentity:
        """The pair. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        return by_either(
            self.clock,
            lambda now: server_identity(
                read_guarded(self.certificate, private=False),
                read_guarded(self.key, private=True),
                trust_domain=self.trust_domain,
                now=now,
                chain_at=str(self.certificate),
                key_at=str(self.key),
                hint=_HINT,
            ),
        )


@dataclass(frozen=True, slots=True)
class BundleFile:
    """The roots of one trust domain."""

    trust_domain: str
    path: Path

    def signature(self) -> object:
        """What ``stat`` says of it."""
        return _stat(self.path)

    def load(self) -> TrustBundle:
        """The bundle. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        return TrustBundle.from_pem(self.trust_domain, read_guarded(self.path, private=False))


def read_guarded(path: Path, *, private: bool) -> bytes:
    """The file's bytes, if it is a regular file that only its owner may write (and, if private, read).

    Raises :class:`InvalidInput` (CONFIG_INVALID).
    """
    try:
        return read_bytes(path, private=private, at_most=MAX_FILE_BYTES)
    except Unfit as unfit:
        raise InvalidInput(
            Reason.CONFIG_INVALID, f"{path} {unfit}.", hint=_HINT, metadata={"file": str(path)}
        ) from None


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # loading it tells what is wrong
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode)
