"""What is sent of a key of one's own that is to be certified: its public half, in the form that the kind takes."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def certificate_request(key: ec.EllipticCurvePrivateKey) -> str:
    """A PKCS #10 request, PEM, that asks for nothing: names come from the template."""
    asking = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return asking.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def openssh_line(key: ec.EllipticCurvePrivateKey) -> str:
    """One line, as in ``authorized_keys``."""
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
