"""The key that a canary has certified: made for one run, kept nowhere.

A certificate is looked at by those it is shown to, and what they check of the key is that it is the one in the
certificate; so the private part is of no use to a run, and is dropped as soon as its public part is written down.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from broker.lease.credential import Contract, SshCertificate, X509Certificate
from broker.lease.own_key import certificate_request, openssh_line


def fresh_public_key(contract: Contract) -> str:
    """What ``subject_public_key`` takes, of a fresh key; empty where the connector certifies none."""
    if contract.gives is X509Certificate:
        return certificate_request(ec.generate_private_key(ec.SECP256R1()))
    if contract.gives is SshCertificate:
        return openssh_line(ec.generate_private_key(ec.SECP256R1()))
    return ""
