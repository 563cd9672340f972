"""A key of the agent's own, to be certified: made here, kept in a 0600 file, and never sent.

Belongs here: making it, what of it is sent, and the files beside it that other programs read. Where it lies is the
caller's to say.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.lease.credential import Credential, SshCertificate, X509Certificate
from broker.lease.own_key import certificate_request, openssh_line

KINDS = ("x509", "ssh")


class AgentKey:
    """One fresh ECDSA P-256 key in ``path``, which must not exist yet. ``public`` is what is sent."""

    def __init__(self, kind: str, path: Path) -> None:
        """Raises a usage error where the file cannot be made, and ClickException where it cannot be written."""
        key = ec.generate_private_key(ec.SECP256R1())
        self.kind = kind
        self.path = path
        self._written: list[Path] = []
        if kind == "ssh":
            form = serialization.PrivateFormat.OpenSSH
            self.public = openssh_line(key)
        else:
            form = serialization.PrivateFormat.PKCS8
            self.public = certificate_request(key)
        try:
            self._write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        except OSError as error:
            self.discard()
            raise click.ClickException(f"the key could not be written to {path}: {error.strerror}.") from None

    def certified(self, credential: Credential) -> dict[str, str]:
        """Put the certificate beside the key; the variables that name the files."""
        told = {"BROKER_KEY_FILE": str(self.path)}
        if isinstance(credential, SshCertificate):
            # Where `ssh -i KEY` looks for it by itself.
            return told | {"BROKER_CERTIFICATE_FILE": self._beside("-cert.pub", credential.certificate)}
        if isinstance(credential, X509Certificate):
            own = self._beside(".crt", credential.certificate)
            return told | {
                "BROKER_CERTIFICATE_FILE": own,
                "BROKER_CA_FILE": self._beside(".ca.crt", credential.ca_chain),
            }
        raise click.ClickException("the template's credential is no certificate: leave out --new-key.")

    def discard(self) -> None:
        """Remove every file that was made here. Twice is the same as once."""
        while self._written:
            self._written.pop().unlink(missing_ok=True)

    def _beside(self, suffix: str, text: str) -> str:
        path = self.path.with_name(self.path.name + suffix)
        self._write(path, text.encode())
        return str(path)

    def _write(self, path: Path, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise click.BadParameter(f"{path} exists; it is never overwritten.", param_hint="--key-out") from None
        except OSError as error:
            raise click.BadParameter(f"{path} cannot be created: {error.strerror}.", param_hint="--key-out") from None
        self._written.append(path)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)


def with_files(environment: Mapping[str, str], key: AgentKey | None, credential: Credential) -> dict[str, str]:
    """``environment`` and the variables that name the key's files."""
    return {**environment, **({} if key is None else key.certified(credential))}
