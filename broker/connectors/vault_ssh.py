"""OpenSSH certificates for agents' own keys, signed by the SSH engine of Vault or OpenBao (kind ``vault-ssh``).

No private key is made upstream and none is ever sent. Who one may log in as, and what the session may do, are the
template's. The engine keeps no list of what it has signed and publishes no revocation list (KRL), so only time ends a
certificate, and nothing of one is left upstream: there is no lease, and nothing to sweep.

Signing is one call with the broker's own token; what it makes is bound to the key that was sent, so that one whose
reply was lost is of no use to anybody but the agent it was for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificate,
    SSHCertificateType,
    SSHCertPublicKeyTypes,
    load_ssh_public_identity,
)

from broker.connectors.subject_key import ssh_public_key
from broker.connectors.unknown_use import cannot_tell
from broker.connectors.vault_answers import object_in, text_in
from broker.connectors.vault_calls import BrokerToken
from broker.connectors.vault_examine import NOBODYS, Rights
from broker.connectors.vault_http import Known, VaultFailure
from broker.connectors.vault_unleased import VaultUnleased, name_in
from broker.errors import InvalidInput, Reason
from broker.lease.credential import Binding, Contract, ContractClass, Credential, SshCertificate
from broker.ports.clock import Clock
from broker.ports.connectors import Handle, Issued, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

_PRINCIPAL = re.compile(r"[a-z_][a-z0-9_.-]{0,63}\Z", re.ASCII)
# What OpenSSH's own clients know (PROTOCOL.certkeys); a forced command is a critical option, and the template's.
EXTENSIONS = frozenset(
    {"permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"}
)
CRITICAL_OPTIONS = frozenset({"force-command", "source-address"})

CONTRACT = Contract(
    cls=ContractClass.EXPIRY_ONLY,
    binding=Binding.KEY,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    # It ends by its own word, at servers whose clock is right; a session that is open then goes on.
    on_expiry=timedelta(seconds=5),
    on_revoke=None,
    broker_dead="The certificate ends by itself. Sessions that are open then go on: the server ends those.",
    upstream_dead="The certificate ends by itself: no server asks the CA.",
    on_broker_dead=timedelta(seconds=5),
    on_upstream_dead=timedelta(seconds=5),
    gives=SshCertificate,
)


@dataclass(frozen=True, slots=True)
class VaultSshSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    mount: str = "ssh"
    ca_file: str | None = None
    namespace: str = ""
    timeout: float = 5.0
    threads: int = 8
    trusted_ca: str = ""  # as in the servers' TrustedUserCAKeys; empty: whether a certificate works cannot be told


class VaultSsh(VaultUnleased):
    """The connector."""

    what = "certificate"

    def __init__(self, name: str, settings: VaultSshSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)
        self._trusted_ca = " ".join(settings.trusted_ca.split()[:2])

    @property
    def contract(self) -> Contract:
        """EXPIRY_ONLY: nothing upstream can end a certificate."""
        return CONTRACT

    def names(self, scope: Scope) -> Mapping[str, JsonValue]:
        """The agent's key and the template's names. Raises InvalidInput."""
        ssh_public_key(scope.subject_public_key)
        _principals(scope)
        _told(scope, "extensions", EXTENSIONS)
        _told(scope, "critical_options", CRITICAL_OPTIONS)
        return {"role": name_in(scope, "role")}

    def make(self, handle: Handle, scope: Scope, begun: datetime, ttl: int) -> Issued:
        """Have the agent's key signed for the template's principals."""
        principals, attempt = _principals(scope), str(handle["attempt"])
        body = {
            "public_key": ssh_public_key(scope.subject_public_key),
            "valid_principals": ",".join(principals),
            "ttl": f"{ttl}s",
            "cert_type": "user",
            "key_id": attempt,
            "extensions": _told(scope, "extensions", EXTENSIONS),
            "critical_options": _told(scope, "critical_options", CRITICAL_OPTIONS),
        }
        data = object_in(self.calls.write(f"{handle['mount']}/sign/{handle['role']}", body), "data")
        line, serial = text_in(data, "signed_key").strip(), text_in(data, "serial_number")
        certificate = _parsed(line)
        self._refuse_other(certificate, scope, attempt, serial)
        return Issued(
            SshCertificate(line, serial, tuple(principals)),
            expires_at=datetime.fromtimestamp(certificate.valid_before, UTC),
            observed={"serial_number": serial, "key_id": attempt, "principals": list(principals)},
        )

    def rights(self) -> Rights:
        """To sign, and nothing that would change who is trusted."""
        mount = self._upstream.mount
        return Rights(
            needed={f"{mount}/sign/{NOBODYS}": (frozenset({"update"}), "nothing can be signed")},
            forbidden={f"{mount}/roles/{NOBODYS}": "change roles", f"{mount}/config/ca": "replace the CA"},
            closed={f"{mount}/issue/{NOBODYS}": "have private keys made"},
        )

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """As a server takes it that trusts ``trusted_ca``. Raises UpstreamFailed, also where none is named."""
        if not isinstance(credential, SshCertificate):
            raise cannot_tell(self.name, "it is no certificate")
        if not self._trusted_ca:
            raise cannot_tell(self.name, "settings.trusted_ca does not say which CA servers trust")
        try:
            certificate = _parsed(credential.certificate)
        except VaultFailure as failure:
            raise cannot_tell(self.name, failure.what) from None
        return Use.WORKS if self._taken(certificate, scope) else Use.REFUSED

    def _taken(self, certificate: SSHCertificate, scope: Scope) -> bool:
        """What ``sshd`` checks of a user's certificate: the CA, the key, the principals, the times."""
        try:
            certificate.verify_cert_signature()
        except InvalidSignature:
            return False
        now = int(self._clock.now().timestamp())
        return (
            _openssh(certificate.signature_key()) == self._trusted_ca
            and _openssh(certificate.public_key()) == ssh_public_key(scope.subject_public_key)
            and certificate.type is SSHCertificateType.USER
            and {each.encode() for each in _principals(scope)} <= set(certificate.valid_principals)
            and certificate.valid_after <= now < certificate.valid_before
        )

    def _refuse_other(self, certificate: SSHCertificate, scope: Scope, attempt: str, serial: str) -> None:
        try:
            certificate.verify_cert_signature()
        except InvalidSignature:
            raise self.mismatch("the certificate's signature does not hold") from None
        if _openssh(certificate.public_key()) != ssh_public_key(scope.subject_public_key):
            raise self.mismatch("the certificate is not of the key that was sent")
        if certificate.type is not SSHCertificateType.USER or certificate.key_id != attempt.encode():
            raise self.mismatch("the certificate is no user's, or carries another id than the attempt's")
        if sorted(certificate.valid_principals) != sorted(each.encode() for each in _principals(scope)):
            raise self.mismatch("the certificate has other principals than the template's")
        for name, got, known in (
            ("extensions", certificate.extensions, EXTENSIONS),
            ("critical options", certificate.critical_options, CRITICAL_OPTIONS),
        ):
            asked = _told(scope, name.replace(" ", "_"), known)
            if {each.decode(): value.decode() for each, value in got.items()} != asked:
                raise self.mismatch(f"the certificate has other {name} than the template's")
        if int(serial, 16) != certificate.serial:
            raise self.mismatch("the certificate has another serial number than the answer says")


def _openssh(key: SSHCertPublicKeyTypes) -> str:
    """``TYPE BASE64``."""
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")


def _principals(scope: Scope) -> Sequence[str]:
    """The template's principals; none would be any, to some servers."""
    told = scope.grant.get("principals")
    named = [told] if isinstance(told, str) else told
    if not isinstance(named, list | tuple) or not named:
        raise _bad(scope, "principals")
    for each in named:
        if not isinstance(each, str) or not _PRINCIPAL.match(each):
            raise _bad(scope, "principals")
    return [str(each) for each in named]


def _told(scope: Scope, field: str, known: frozenset[str]) -> dict[str, str]:
    told = scope.grant.get(field) or {}
    if isinstance(told, list | tuple):
        told = {str(each): "" for each in told}
    if not isinstance(told, Mapping) or not known.issuperset(told):
        raise _bad(scope, field)
    return {str(name): str(value) for name, value in told.items()}


def _bad(scope: Scope, field: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} has no good {field}.",
        hint="grant.principals: one login name at least; grant.extensions and .critical_options: OpenSSH's own.",
        metadata={"template": scope.template, "field": field},
    )


def _parsed(line: str) -> SSHCertificate:
    try:
        read = load_ssh_public_identity(line.encode("ascii"))
    except ValueError:
        read = None
    if not isinstance(read, SSHCertificate):
        raise VaultFailure(Known.UNKNOWN, "the answer says success but its signed_key is no certificate")
    return read
