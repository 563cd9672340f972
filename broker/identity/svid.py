"""Is this certificate chain the X.509-SVID of a workload, now, under these bundles?

Belongs here: the rules of the SPIFFE X509-SVID standard (sections 2 to 5), one function per rule, in
the order of ``LEAF_RULES``. The answer is a pure function of (chain, bundles, time). TLS has already
looked at the same bytes, but a TLS library binds no root to a trust domain and accepts two URIs, a CA
as a leaf and ids in any spelling; what counts is what is decided here.

Where the standard says SHOULD and the safe reading is stricter, the safe reading is taken and the
rule's docstring says so. URI name constraints are not evaluated by ``cryptography``, which refuses
chains that carry them: fails closed, as the standard foresees (section 4.2).

Does not belong here: who is registered (``agent.py``), and how the bytes came (``broker/api/tls.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, VerificationError

from broker.errors import Reason, Unauthenticated
from broker.identity.agent import Peer
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.certificate import CertificateUnreadable, Facts, brief, read_certificates
from broker.identity.spiffe_id import SpiffeId

# Nested SPIRE sends one or two intermediates; each more is another signature to verify for a stranger.
MAX_INTERMEDIATES = 4

# NIST SP 800-131A revision 2, table 2: an RSA key below this has less than 112 bits of strength. Of the curves,
# those that TLS 1.3 signs certificates with (RFC 8446, 4.2.3) and path validation knows.
MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

# RFC 5280, 4.1.2.2: a positive number of at most 20 octets.
_MAX_SERIAL_BITS = 8 * 20 - 1

_BOTH_PURPOSES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


# The library's defaults are the Web PKI's, narrower than SPIFFE in three places that a rule here (or the
# signature) decides: a critical extended key usage and critical names are allowed, and path validation
# (RFC 5280, 6.1) does not ask for an authority key identifier. Everything else stays as strict as there.
_LEAF_POLICY = (
    ExtensionPolicy.webpki_defaults_ee()
    .require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, None)
    .may_be_present(x509.AuthorityKeyIdentifier, Criticality.NON_CRITICAL, None)
)
_SIGNER_POLICY = ExtensionPolicy.webpki_defaults_ca()


def validate_x509_svid(leaf: bytes, intermediates: bytes, bundles: Bundles, now: datetime) -> Peer:
    """The peer that ``leaf`` proves, if ``bundles`` and ``now`` (timezone-aware) allow.

    ``leaf`` is one certificate in PEM or DER; ``intermediates`` are PEM blocks (or one DER), possibly
    none. The peer's ``not_before`` and ``not_after`` are those of the *whole verified chain*: inside
    that window the same bytes and bundles give the same answer.

    Raises :class:`Unauthenticated` with one of the ``SVID_*`` reasons, for any bytes whatever.
    """
    facts = read_leaf(leaf)
    for rule in LEAF_RULES:
        rule(facts, now)
    spiffe_id = one_canonical_id(facts)
    chain = verify_chain(facts, read_intermediates(intermediates), bundle_of(spiffe_id, bundles), now)
    return Peer(
        spiffe_id=spiffe_id,
        not_before=max(certificate.not_valid_before_utc for certificate in chain),
        not_after=min(certificate.not_valid_after_utc for certificate in chain),
        serial=facts.serial,
        fingerprint=facts.fingerprint,
        issuer=facts.certificate.issuer.rfc4514_string(),
    )


def read_leaf(leaf: bytes) -> Facts:
    """The one certificate in ``leaf``. Raises SVID_MISSING for no bytes, SVID_MALFORMED for anything else."""
    if not leaf:
        raise Unauthenticated(
            Reason.SVID_MISSING,
            "The peer presented no certificate.",
            hint="Connect with mTLS, using the X.509-SVID from the SPIFFE Workload API.",
        )
    try:
        (facts,) = read_certificates(leaf, at_most=1)
    except CertificateUnreadable as error:
        raise Unauthenticated(
            Reason.SVID_MALFORMED,
            f"The peer's certificate cannot be read: {error}.",
            hint="Present one well-formed X.509 certificate; `broker doctor` shows what is sent.",
        ) from None
    return facts


def read_intermediates(intermediates: bytes) -> tuple[Facts, ...]:
    """The certificates sent beside the leaf. Raises SVID_CHAIN_INVALID."""
    try:
        return read_certificates(intermediates, at_most=MAX_INTERMEDIATES)
    except CertificateUnreadable as error:
        raise _chain_refused(f"the certificates beside the leaf cannot be read: {error}") from None


def one_canonical_id(leaf: Facts) -> SpiffeId:
    """Exactly one URI SAN, and that a workload's SPIFFE ID in its one spelling (sections 2, 3.1, 5.2)."""
    if len(leaf.uris) != 1:
        raise _refused(
            Reason.SVID_URI_COUNT,
            f"The certificate has {len(leaf.uris)} URI names; an X.509-SVID has exactly one.",
            "Ask the trust domain's authority for an SVID with one SPIFFE ID.",
            leaf,
            uriCount=str(len(leaf.uris)),
        )
    return SpiffeId.parse(leaf.uris[0])


def _check_id(leaf: Facts, _now: datetime) -> None:
    one_canonical_id(leaf)


def _check_names_critical(leaf: Facts, _now: datetime) -> None:
    """The names are critical where there is no subject, or a reader may take it for nobody's (section 3.1)."""
    if not leaf.has_subject and not leaf.names_critical:
        raise _refused(
            Reason.SVID_MALFORMED,
            "The certificate has no subject, and its subject alternative names are not critical.",
            "Ask the trust domain's authority for an SVID after the X509-SVID standard, section 3.1.",
            leaf,
        )


def _check_serial(leaf: Facts, _now: datetime) -> None:
    """Positive, at most 20 octets (RFC 5280, 4.1.2.2): a deny list of serial numbers rests on there being one."""
    if leaf.serial <= 0 or leaf.serial.bit_length() > _MAX_SERIAL_BITS:
        raise _refused(
            Reason.SVID_MALFORMED,
            "The certificate's serial number is not a positive number of at most 20 octets.",
            "Ask the trust domain's authority for an SVID after RFC 5280, section 4.1.2.2.",
            leaf,
        )


def _check_not_ca(leaf: Facts, _now: datetime) -> None:
    """Signing certificates MUST NOT authenticate (sections 3.2, 4.1)."""
    if leaf.is_ca:
        raise _refused(
            Reason.SVID_IS_CA,
            "The certificate is a CA (CA:TRUE); a CA never stands for a workload.",
            "Present the workload's own SVID, not the authority's certificate.",
            leaf,
        )


def _check_key_usage(leaf: Facts, _now: datetime) -> None:
    """Present, critical, digitalSignature, and neither keyCertSign nor cRLSign (section 4.3)."""
    usage = leaf.key_usage
    if usage is None:
        wrong = "has no key usage"
    elif not leaf.key_usage_critical:
        wrong = "has a key usage that is not critical"
    elif usage.key_cert_sign or usage.crl_sign:
        wrong = "may sign certificates or CRLs (keyCertSign or cRLSign)"
    elif not usage.digital_signature:
        wrong = "lacks digitalSignature in its key usage"
    else:
        return
    raise _refused(
        Reason.SVID_KEY_USAGE,
        f"The certificate {wrong}.",
        "An X.509-SVID has a critical key usage with digitalSignature and without keyCertSign and cRLSign.",
        leaf,
    )


def _check_extended_key_usage(leaf: Facts, _now: datetime) -> None:
    """May be absent; if present, both serverAuth and clientAuth (section 4.4)."""
    if leaf.extended_key_usage is not None and not leaf.extended_key_usage >= _BOTH_PURPOSES:
        raise _refused(
            Reason.SVID_EXTENDED_KEY_USAGE,
            "The certificate's extended key usage lacks serverAuth or clientAuth.",
            "An X.509-SVID has both, or no extended key usage at all.",
            leaf,
        )


def _check_key(leaf: Facts, _now: datetime) -> None:
    """RSA with at least 2048 bits, or one of the curves P-256, P-384, P-521.

    The standard says nothing of keys. A weak one proves nobody: who can compute it is the workload.
    """
    key = leaf.public_key
    match key:
        case rsa.RSAPublicKey():
            told, good = f"RSA with {key.key_size} bits", key.key_size >= MIN_RSA_BITS
        case ec.EllipticCurvePublicKey():
            told, good = f"on the curve {key.curve.name}", isinstance(key.curve, _CURVES)
        case _:
            told, good = type(key).__name__.removesuffix("PublicKey"), False
    if not good:
        raise _refused(
            Reason.SVID_KEY_WEAK,
            f"The certificate's key is not accepted: {told}.",
            f"Have the SVID issued for a key on P-256 (or P-384, P-521), or RSA with at least {MIN_RSA_BITS} bits.",
            leaf,
            key=told,
        )


def _check_begun(leaf: Facts, now: datetime) -> None:
    if now < leaf.not_before:
        raise _refused(
            Reason.SVID_NOT_YET_VALID,
            f"The certificate is valid from {leaf.not_before.isoformat()}; it is {now.isoformat()}.",
            "Compare the clocks of the broker and of the trust domain's authority.",
            leaf,
            notBefore=leaf.not_before.isoformat(),
            now=now.isoformat(),
        )


def _check_not_ended(leaf: Facts, now: datetime) -> None:
    if now > leaf.not_after:
        raise _refused(
            Reason.SVID_EXPIRED,
            f"The certificate was valid until {leaf.not_after.isoformat()}; it is {now.isoformat()}.",
            "Fetch a fresh SVID from the SPIFFE Workload API and open a new connection with it.",
            leaf,
            notAfter=leaf.not_after.isoformat(),
            now=now.isoformat(),
        )


# In the order they are asked: the first broken one is the reason the peer hears.
LEAF_RULES: Sequence[Callable[[Facts, datetime], None]] = (
    _check_id,
    _check_names_critical,
    _check_serial,
    _check_not_ca,
    _check_key_usage,
    _check_extended_key_usage,
    _check_key,
    _check_begun,
    _check_not_ended,
)


def bundle_of(spiffe_id: SpiffeId, bundles: Bundles) -> TrustBundle:
    """The bundle of the trust domain the id *claims*. Raises SVID_TRUST_DOMAIN_UNKNOWN."""
    try:
        return bundles[spiffe_id.trust_domain]
    except KeyError:
        raise Unauthenticated(
            Reason.SVID_TRUST_DOMAIN_UNKNOWN,
            f"The broker has no trust bundle for the trust domain {spiffe_id.trust_domain}.",
            hint="An operator adds the bundle of each trust domain that agents may come from.",
            metadata={"trustDomain": spiffe_id.trust_domain},
        ) from None


def check_intermediate(intermediate: Facts, trust_domain: str) -> None:
    """A signing certificate of ``trust_domain`` (sections 3.2, 4.1, 4.3). Raises SVID_CHAIN_INVALID.

    Stricter than the SHOULD of 3.2: one that names another trust domain is refused. An authority may
    certify authorities of *other* trust domains (a MAY), and those must not mint ids of this one.
    """
    usage = intermediate.key_usage
    if not intermediate.is_ca or usage is None or not usage.key_cert_sign:
        wrong = "is not a signing certificate (CA:TRUE and keyCertSign)"
    elif any(uri != f"spiffe://{trust_domain}" for uri in intermediate.uris):
        wrong = f"names something other than spiffe://{trust_domain}: {ascii(intermediate.uris)[:200]}"
    elif intermediate.uris and not intermediate.key_usage_critical:
        wrong = "is an SVID whose key usage is not critical"
    else:
        return
    raise _chain_refused(f"an intermediate {wrong}", trustDomain=trust_domain, fingerprint=intermediate.fingerprint)


def verify_chain(
    leaf: Facts, intermediates: Sequence[Facts], bundle: TrustBundle, now: datetime
) -> Sequence[x509.Certificate]:
    """RFC 5280 path validation to ``bundle`` and no other (section 5.1): the path found, leaf to root.

    Raises SVID_CHAIN_INVALID.
    """
    for intermediate in intermediates:
        check_intermediate(intermediate, bundle.trust_domain)
    verifier = (
        PolicyBuilder()
        .store(bundle.store)
        .time(now)
        .max_chain_depth(MAX_INTERMEDIATES)
        .extension_policies(ca_policy=_SIGNER_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        return verifier.verify(leaf.certificate, [each.certificate for each in intermediates]).chain
    except (VerificationError, ValueError) as error:
        raise _chain_refused(
            f"it does not lead to the bundle of {bundle.trust_domain}: {brief(error)}", trustDomain=bundle.trust_domain
        ) from None


def _chain_refused(why: str, **metadata: str) -> Unauthenticated:
    return Unauthenticated(
        Reason.SVID_CHAIN_INVALID,
        f"The certificate's chain is refused: {why}.",
        hint="Send the leaf with the intermediates its authority gave; if the authority's root rotated, "
        "the broker's bundle must have it.",
        metadata=metadata,
    )


def _refused(reason: Reason, message: str, hint: str, leaf: Facts, **metadata: str) -> Unauthenticated:
    return Unauthenticated(reason, message, hint=hint, metadata={"fingerprint": leaf.fingerprint, **metadata})
