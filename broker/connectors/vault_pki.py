"""X.509 certificates for agents' own keys, signed by the PKI engine of Vault or OpenBao (kind ``vault-pki``).

No private key is made upstream and none is ever sent. What is certified is the agent's key and the template's names:
the request that the agent makes of its key asks for nothing, and what comes back is compared with what was asked.

Ending a certificate means that its serial number is on the CA's revocation list. That ends it at those who read the
list, and when they read it; at nobody else before its time is over. How soon they do is the operators' to say: without
their word the contract says that only time ends it.

The engine's role must make leases (``generate_lease=true``), store what it signs, and belong to the broker alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from broker.connectors.subject_key import x509_request
from broker.connectors.unknown_use import cannot_tell
from broker.connectors.vault_answers import object_in, text_in, texts_in
from broker.connectors.vault_calls import AttemptToken, BrokerToken
from broker.connectors.vault_engine import Made, VaultEngine
from broker.connectors.vault_examine import NOBODYS, Rights
from broker.connectors.vault_http import Known, VaultFailure
from broker.errors import InvalidInput, Reason
from broker.lease.credential import Binding, Contract, ContractClass, Credential, X509Certificate
from broker.ports.clock import Clock
from broker.ports.connectors import Expired, Handle, NotYet, RevokeContext, Revoked, RevokeOutcome, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope

# RFC 1123 names, lower case; a wildcard is a name only where the operator wrote it.
_DNS = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z", re.ASCII)
_LONGEST_COMMON_NAME = 64
_SERIAL = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2})*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class VaultPkiSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    mount: str = "pki"
    # How soon every relying party reads a new revocation list; None: not known, so only time ends a certificate.
    list_read_within: timedelta | None = None
    token_role: str = "jit-attempt"  # noqa: S105 - a name, not a token
    policy_prefix: str = "jit-attempt-"
    ca_file: str | None = None
    namespace: str = ""
    timeout: float = 5.0
    threads: int = 8


class VaultPki(VaultEngine):
    """The connector."""

    kind = "sign"
    what = "certificate"

    def __init__(self, name: str, settings: VaultPkiSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)
        self._contract = contract(settings.list_read_within)

    @property
    def contract(self) -> Contract:
        """BY_POLICY where operators say how soon the revocation list is read; else EXPIRY_ONLY."""
        return self._contract

    def check(self, scope: Scope) -> None:
        """The agent's request asks for nothing; the template's names are names. Raises InvalidInput."""
        x509_request(scope.subject_public_key)
        for name in _names(scope):
            if len(name) > 253 or not _DNS.match(name):
                raise _bad_name(scope, name)
        if len(_names(scope)[0]) > _LONGEST_COMMON_NAME:
            raise _bad_name(scope, _names(scope)[0])

    def make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        """Have the agent's key signed for the template's names."""
        first, *more = _names(scope)
        body = {
            "csr": scope.subject_public_key,
            "common_name": first,
            "alt_names": ",".join(more),
            "ttl": f"{ttl}s",
            "format": "pem",
        }
        answer = self._calls.write(f"{handle['mount']}/sign/{handle['role']}", body, token.token)
        data = object_in(answer, "data")
        pem, serial = text_in(data, "certificate"), text_in(data, "serial_number")
        chain = texts_in(data, "ca_chain") if data.get("ca_chain") else (text_in(data, "issuing_ca"),)
        ends = _parsed(pem).not_valid_after_utc
        return Made(
            text_in(answer, "lease_id"),
            X509Certificate(pem.strip() + "\n", "".join(each.strip() + "\n" for each in chain), serial),
            {"serial_number": serial, "common_name": first},
            {"serial": serial, "not_after": ends.isoformat()},
            ends,
        )

    def refuse_foreign(self, made: Made, handle: Handle, scope: Scope) -> None:
        """The certificate is of the agent's key and of the template's names, and signs no others."""
        credential = made.credential
        assert isinstance(credential, X509Certificate)  # noqa: S101 - make() made it
        certificate, request = _parsed(credential.certificate), x509_request(scope.subject_public_key)
        if _spki(certificate) != _spki(request):
            raise self.mismatch("the certificate is not of the key that was sent")
        if (
            not _SERIAL.match(credential.serial_number)
            or _number(credential.serial_number) != certificate.serial_number
        ):
            raise self.mismatch("the certificate has another serial number than the answer says")
        if _told_names(certificate) != set(_names(scope)):
            raise self.mismatch("the certificate has other names than the template's")
        if _signs_others(certificate):
            raise self.mismatch("the certificate is a CA's")

    def proof(self, handle: Handle, now: datetime) -> Mapping[str, JsonValue]:
        """The serial number is on the issuer's list, or the certificate's own time is over; blocks."""
        serial = handle.get("serial")
        if serial is None:
            return {}  # found by its lease alone: whoever made it was never told its number
        if _is_over(handle, now):
            return {"serial_number": str(serial), "revocation_list": "its own time is over"}
        if not self._on_list(str(handle["mount"]), str(serial)):
            raise VaultFailure(Known.UNKNOWN, "its lease is gone, but its serial number is not on the revocation list")
        return {"serial_number": str(serial), "revocation_list": "the serial number is on it"}

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Put it on the revocation list; that ends it where operators said that the list is read."""
        outcome = await super().revoke(handle, context)
        if isinstance(outcome, NotYet) and outcome.alone and _is_over(handle, context.now):
            return Expired()  # everywhere, whoever made it and whoever can be asked
        if self._contract.cls is ContractClass.BY_POLICY or not isinstance(outcome, Revoked):
            return outcome
        left = context.expires_at - context.now
        if left <= timedelta(0):
            return Expired()
        return NotYet("it is on the revocation list, which not everybody is known to read.", left, failed=False)

    def rights(self) -> Rights:
        """As for every engine, and to read revocation lists; not to sign by itself, and nothing of the CA's."""
        common, mount, read = super().rights(), self._upstream.mount, frozenset({"read"})
        return Rights(
            needed={
                **common.needed,
                f"{mount}/cert/{NOBODYS}": (read, "no revocation can be proven"),
                f"{mount}/issuer/{NOBODYS}/crl": (read, "no revocation can be proven"),
            },
            forbidden={
                **common.forbidden,
                f"{mount}/root/generate/internal": "make CAs",
                f"{mount}/config/crl": "switch the revocation list off",
                f"{mount}/sign-verbatim": "sign whatever is asked",
            },
            closed={**common.closed, f"{mount}/issue/{NOBODYS}": "have private keys made"},
        )

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """As a relying party takes it that trusts the CA and reads its revocation list. Raises UpstreamFailed."""
        if not isinstance(credential, X509Certificate):
            raise cannot_tell(self.name, "it is no certificate")
        try:
            with self._closing.call():
                return await self._using.run(lambda: self._taken(credential, scope))
        except VaultFailure as failure:
            raise cannot_tell(self.name, failure.what) from None

    def _taken(self, credential: X509Certificate, scope: Scope) -> Use:
        """The key, the times, the CA's signature and its list, in this order; blocks. Raises VaultFailure."""
        certificate, now = _parsed(credential.certificate), self._clock.now()
        if _spki(certificate) != _spki(x509_request(scope.subject_public_key)):
            return Use.REFUSED  # whoever shows it has another key
        if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
            return Use.REFUSED
        mount = self._upstream.mount
        issuer = self._issuer_of(mount, credential.serial_number)
        told = object_in(self._calls.read(f"{mount}/issuer/{issuer}/json"), "data")
        authority = _parsed(text_in(told, "certificate"))
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return Use.REFUSED
        listed = self._list_of(mount, issuer)
        if not listed.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]  # of a CA: it can sign
            raise VaultFailure(Known.UNKNOWN, "the revocation list is not signed by the CA")
        number = certificate.serial_number
        return Use.WORKS if listed.get_revoked_certificate_by_serial_number(number) is None else Use.REFUSED

    def _on_list(self, mount: str, serial: str) -> bool:
        """Whether the number is on the list of whoever issued it, as the server publishes that now."""
        listed = self._list_of(mount, self._issuer_of(mount, serial))
        return listed.get_revoked_certificate_by_serial_number(_number(serial)) is not None

    def _issuer_of(self, mount: str, serial: str) -> str:
        kept = object_in(self._calls.read(f"{mount}/cert/{serial}"), "data")
        return str(kept.get("issuer_id") or "default")  # told of revoked ones only

    def _list_of(self, mount: str, issuer: str) -> x509.CertificateRevocationList:
        told = object_in(self._calls.read(f"{mount}/issuer/{issuer}/crl"), "data")
        try:
            return x509.load_pem_x509_crl(text_in(told, "crl").encode("ascii"))
        except ValueError:
            raise VaultFailure(Known.UNKNOWN, "the revocation list cannot be read") from None


def contract(list_read_within: timedelta | None) -> Contract:
    """What is promised, by how soon the revocation list is read."""
    known = list_read_within is not None
    return Contract(
        cls=ContractClass.BY_POLICY if known else ContractClass.EXPIRY_ONLY,
        binding=Binding.KEY,
        ttl_floor=timedelta(seconds=1),
        ttl_ceiling=timedelta(hours=1),
        # Its own word: relying parties' clocks may be behind.
        on_expiry=timedelta(seconds=5),
        on_revoke=list_read_within,
        broker_dead="The certificate ends by itself; the upstream puts it on the revocation list at the TTL.",
        upstream_dead="The certificate ends by itself; a revocation waits until the upstream is back.",
        on_broker_dead=timedelta(seconds=5),
        on_upstream_dead=timedelta(seconds=5),
        gives=X509Certificate,
    )


def _is_over(handle: Handle, now: datetime) -> bool:
    """Whether the certificate's own time is over, where that was noted."""
    return "not_after" in handle and now >= datetime.fromisoformat(str(handle["not_after"]))


def _names(scope: Scope) -> list[str]:
    """The template's names, the common name first, each once."""
    first, more = scope.grant.get("common_name"), scope.grant.get("dns_names") or []
    names = [first, *more] if isinstance(more, list | tuple) else [None]
    if not all(isinstance(each, str) for each in names):
        raise _bad_name(scope, "")
    return list(dict.fromkeys(str(each) for each in names))


def _bad_name(scope: Scope, name: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} does not come to DNS names: {name[:100]!a} is none.",
        hint="grant.common_name and grant.dns_names: lower-case DNS names with a dot; a common name has 64 characters.",
        metadata={"template": scope.template},
    )


def _parsed(pem: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
    except ValueError:
        certificate = None
    if certificate is None:
        raise VaultFailure(Known.UNKNOWN, "the answer says success but its certificate cannot be read")
    return certificate


def _spki(of: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _told_names(certificate: x509.Certificate) -> set[str]:
    """Every name the certificate has, whatever its kind; one that is no DNS name equals no name of a template."""
    told = {str(each.value) for each in certificate.subject if each.oid == NameOID.COMMON_NAME}
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return told
    return told | {each.value if isinstance(each, x509.DNSName) else f"<{type(each).__name__}>" for each in others}


def _signs_others(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _number(serial: str) -> int:
    return int(serial.replace(":", ""), 16)
