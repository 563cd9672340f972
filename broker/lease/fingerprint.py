"""Which secret it was, for somebody who has the secret: a keyed digest that tells nobody else anything.

The audit trail bears one of each secret that was issued, so that a secret found in a paste, a log or a repository can
be asked after (``broker audit find-secret``). Without the key, which is never beside the trail, it cannot even be tried
whether a guess is right. The key is the ledger's; a prefix keeps this use of it apart from the others.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import fields

from broker.lease.credential import KINDS, Credential
from broker.secret import Secret

_FIELDS: Mapping[type, tuple[str, ...]] = {kind: tuple(each.name for each in fields(kind)) for kind in KINDS}
# What most fields hold; asking an abstract class about them is dear.
_PLAIN = frozenset({str, int, tuple})


def fingerprint(key: bytes, secret: Secret) -> str:
    """HMAC-SHA256 of the secret, in hex."""
    return hmac.digest(key, b"secret\0" + secret.reveal().encode(), "sha256").hex()


def secrets_in(credential: Credential) -> Iterator[tuple[str, Secret]]:
    """Every field of ``credential`` that opens a door, by name; of a mapping each, as FIELD.NAME."""
    for name in _FIELDS[type(credential)]:
        value = getattr(credential, name)
        if isinstance(value, Secret):
            yield name, value
        elif value.__class__ not in _PLAIN and isinstance(value, Mapping):
            yield from ((f"{name}.{key}", inner) for key, inner in value.items() if isinstance(inner, Secret))


def fingerprints(key_id: str, key: bytes, credential: Credential, inside: Credential | None = None) -> dict[str, str]:
    """What the trail says of the secrets in ``credential``, and ``inside`` it where it is wrapped: one digest each, and
    which key made them.
    """
    both = (credential,) if inside is None else (inside, credential)
    digests = {name: fingerprint(key, secret) for each in both for name, secret in secrets_in(each)}
    return {"key_id": key_id, **digests}
