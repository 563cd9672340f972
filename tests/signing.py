"""People with keys, who sign deploy sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from broker.deployfiles import listing
from broker.deployfiles.signers import Signer, Signers
from broker.deployfiles.signing import sign

# Key to person. Dana has two keys and is still one.
PEOPLE = {"dana-1": "dana", "dana-2": "dana", "alex-1": "alex", "kim-1": "kim"}
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"#")) for name in PEOPLE}
STRANGER = Ed25519PrivateKey.from_private_bytes(b"stranger".ljust(32, b"#"))


def signers(required: int = 2, **people: str) -> Signers:
    chosen = people or PEOPLE
    return Signers({name: Signer(chosen[name], KEYS[name].public_key()) for name in chosen}, required)


def signed(directory: Path, *names: str, author: str = "dana", serial: int = 1) -> Path:
    """``directory``, signed by these keys and nobody else."""
    envelope = directory / listing.ENVELOPE
    envelope.unlink(missing_ok=True)
    for name in names:
        sign(directory, KEYS[name], name, author=author, serial=serial)
    return directory


def public_pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def deploy_section(required: int = 2) -> dict[str, Any]:
    """The ``deploy`` section of a brokerd that asks for signatures."""
    keys = {name: {"person": person, "pem": public_pem(KEYS[name])} for name, person in PEOPLE.items()}
    return {"directory": "deploy", "deploy_keys": keys, "deploy_signatures_required": required}
