"""Where a credential goes that nobody should see: a fresh 0600 file, or an open descriptor.

Belongs here: writing it whole, before its arrival is confirmed to the broker, and leaving nothing behind
if that fails. Everything that can be refused is refused when the place is opened, before the broker is asked.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import click

from broker.cli.agent_key import AgentKey
from broker.cli.fitting import unfit
from broker.cli.output import camel, environment_lines, to_json
from broker.client import Grant
from broker.client.forms import Form, credential_process, fits, kubeconfig, pgpass, token_of
from broker.lease.credential import (
    AwsAccessKey,
    AwsSession,
    DatabaseLogin,
    GcpToken,
    KubernetesToken,
    SshCertificate,
    StaticSecret,
    WrappedSecret,
    X509Certificate,
)
from broker.secret import Secret

# Forms of forms.py that are one text.
NEEDED_FORMS = (Form.CREDENTIAL_PROCESS.value, Form.PGPASS.value, Form.KUBECONFIG.value, Form.TOKEN.value)


class Delivery(Protocol):
    """One place a credential can be put."""

    def write(self, text: str) -> None:
        """All of it, durably where there is such a thing. Raises OSError; then call :meth:`discard`."""
        ...

    def discard(self) -> None:
        """Leave nothing of it behind."""
        ...


class FileDelivery:
    """A file that does not exist yet, nobody else's to read, and no symbolic link."""

    def __init__(self, path: Path) -> None:
        """Creates it, empty. Raises a usage error where it cannot."""
        self._path = path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            raise click.BadParameter(f"{path} exists; it is never overwritten.", param_hint="--out") from None
        except OSError as error:
            raise click.BadParameter(f"{path} cannot be created: {error.strerror}.", param_hint="--out") from None

    def write(self, text: str) -> None:
        """Write, then sync the file and the directory it was made in."""
        if self._descriptor is None:
            raise ValueError("a file is delivered to once")
        _write_all(self._descriptor, text)
        os.fsync(self._descriptor)
        self._close()
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def discard(self) -> None:
        """Remove the file."""
        self._close()
        self._path.unlink(missing_ok=True)

    def _close(self) -> None:
        # Once: the number may be somebody else's a moment later.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


class DescriptorDelivery:
    """A descriptor this process was given: a pipe to whoever waits for the credential."""

    def __init__(self, descriptor: int) -> None:
        """Raises a usage error if it is not open for writing, or is one of the standard ones."""
        if descriptor < 3:
            raise click.BadParameter("0, 1 and 2 are the terminal's; print with --reveal.", param_hint="--fd")
        try:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError as error:
            raise click.BadParameter(f"{descriptor}: {error.strerror}.", param_hint="--fd") from None
        if mode == os.O_RDONLY:
            raise click.BadParameter(f"{descriptor} is not open for writing.", param_hint="--fd")
        self._descriptor = descriptor

    def write(self, text: str) -> None:
        """Write and close, so that the reader sees the end."""
        _write_all(self._descriptor, text)
        os.close(self._descriptor)

    def discard(self) -> None:
        """What a reader has taken cannot be taken back; the lease can, and is."""


class PrintDelivery:
    """Standard output, for who said --reveal."""

    def write(self, text: str) -> None:
        """Print it."""
        click.echo(text, nl=False)

    def discard(self) -> None:
        """What is printed is printed; the lease is taken back."""


class KeyDelivery:
    """Beside the key that was made for it; the files are the key's own to write."""

    def __init__(self, key: AgentKey) -> None:
        self.key = key

    def write(self, text: str) -> None:
        """A certificate is no secret: it is in files of its own, not in this one's text."""

    def discard(self) -> None:
        """Remove the key and what lies beside it."""
        self.key.discard()


def _write_all(descriptor: int, text: str) -> None:
    rest = memoryview(text.encode())
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def choose(out: Path | None, descriptor: int | None, *, reveal: bool) -> Delivery:
    """The one place that was named; a usage error if none or several were."""
    if (out is not None) + (descriptor is not None) + reveal != 1:
        raise click.UsageError("Say where the credential goes: one of --out FILE, --fd N or --reveal.")
    if out is not None:
        return FileDelivery(out)
    return PrintDelivery() if descriptor is None else DescriptorDelivery(descriptor)


def demand_fit(form: Form, grant: Grant) -> None:
    """A usage error where a credential of this kind has no such form."""
    if not fits(form, type(grant.credential)):
        raise unfit(form, type(grant.credential), "it was taken back")


def written(grant: Grant, form: str) -> str:
    """The credential with its secret, in clear, as ``form``. Ends with a newline, but for a token.

    Raises a usage error where a credential of this kind has no such form.
    """
    if form in NEEDED_FORMS:
        demand_fit(Form(form), grant)
    match form, grant.credential:
        case Form.CREDENTIAL_PROCESS, _:
            return credential_process(grant)
        case Form.PGPASS, DatabaseLogin() as login:
            return pgpass(login)
        case Form.TOKEN, credential if (token := token_of(credential)) is not None:
            return token.reveal()
        case "json", _:
            return json.dumps(_revealed(grant), indent=2, ensure_ascii=False) + "\n"
        case "env", _:
            return environment_lines(grant.environment()) + "\n"
        case _, DatabaseLogin():
            return grant.conninfo() + "\n"
        case _, AwsSession():
            return _profile(grant.aws)
        case _, AwsAccessKey() as key:
            return _profile(key)
        case _, X509Certificate() as x509:
            return x509.certificate + x509.ca_chain
        case _, SshCertificate() as ssh:
            return ssh.certificate.strip() + "\n"
        case _, StaticSecret():
            return environment_lines(grant.environment()) + "\n"
        case _, KubernetesToken() as kubernetes:
            return kubeconfig(kubernetes)
        case _, WrappedSecret() as wrapped:
            return wrapped.wrapping_token.reveal() + "\n"
        case _, GcpToken():
            return grant.gcp.access_token.reveal() + "\n"
    raise TypeError(f"{type(grant.credential).__name__} has no text form")


def _revealed(grant: Grant) -> dict[str, object]:
    kind = type(grant.credential).__name__
    names = type(grant.credential).__dataclass_fields__
    values = {name: getattr(grant.credential, name) for name in names}
    body = {camel(name): _clear(each) for name, each in values.items()}
    return {"kind": kind[0].lower() + kind[1:], **body, "lease": to_json(grant.lease)}


def _clear(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _clear(each) for name, each in value.items()}
    return value.reveal() if isinstance(value, Secret) else to_json(value)


def _profile(session: AwsSession | AwsAccessKey) -> str:
    """A profile of AWS's shared credentials file."""
    lines = [
        "[default]",
        f"aws_access_key_id = {session.access_key_id}",
        f"aws_secret_access_key = {session.secret_access_key.reveal()}",
    ]
    also = {"region": session.region}
    if isinstance(session, AwsSession):
        lines.append(f"aws_session_token = {session.session_token.reveal()}")
        also["endpoint_url"] = session.endpoint_url
    return "\n".join([*lines, *(f"{name} = {value}" for name, value in also.items() if value)]) + "\n"
