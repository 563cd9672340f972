"""The key that a canary has certified: made for one run, kept nowhere.

A certificate is looked at by those it is shown to, and what they check of the key is that it is the one in the
certificate; so the private part is of no use to a run, and is dropped as soon as its public part is written down.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.lease.credential import Contract, SshCertificate, X509Certificate


def fresh_public_key(contract: Contract) -> str:
    """What ``subject_public_key`` takes, of a fresh key; empty where the connector certifies none."""
    if contract.gives is X509Certificate:
        return _request(ec.generate_private_key(ec.SECP256R1()))
    if contract.gives is SshCertificate:
        return _line(ec.generate_private_key(ec.SECP256R1()))
    return ""


def _request(key: ec.EllipticCurvePrivateKey) -> str:
    """A PKCS #10 request that asks for nothing: names come from the template."""
    asking = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return asking.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _line(key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
