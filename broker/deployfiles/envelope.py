"""The file in which a deploy set carries its signatures: one DSSE envelope, as securesystemslib makes it.

Belongs here: the file's form, and which of its signatures hold. Does not belong here: what is signed
(``statement.py``), and whether that suffices (``signed.py``). The payload is not looked into before every
signature over it has been checked.
Source: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md and protocol.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, SSlibKey

from broker.config import KeyName
from broker.deployfiles.signers import Signers
from broker.deployfiles.statement import PAYLOAD_TYPE, Statement, Unsound
from broker.files import Document, Model, Problem, Problems, parse_yaml, validated


class SignatureEntry(Model):
    """One signature: ``keyid`` is the key's name in deploy_keys."""

    keyid: KeyName
    sig: str


class EnvelopeFile(Model):
    """The envelope's JSON."""

    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: list[SignatureEntry] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An envelope and where its parts stand in the file."""

    document: Document = field(repr=False)
    envelope: Envelope

    @classmethod
    def parse(cls, shown: str, text: str) -> Sealed:
        """The envelope in ``text``, which ``shown`` names. Raises :class:`Problems`. Nothing is verified yet."""
        # JSON is in the YAML that operators write; this reader refuses what comes twice, and knows lines.
        document = parse_yaml(shown, text)
        file = validated(EnvelopeFile, document)
        names = [entry.keyid for entry in file.signatures]
        twice = [index for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise Problems(
                [_problem(document, ("signatures", index), "is by a key that signed already") for index in twice]
            )
        try:
            envelope = Envelope.from_dict(file.model_dump(by_alias=True))
        except ValueError:
            raise Problems([_problem(document, (), "is not base64 where it should be")]) from None
        return cls(document, envelope)

    def problem(self, at: tuple[str | int, ...], message: str, hint: str = "") -> Problem:
        """What is wrong with the part at ``at``."""
        return _problem(self.document, at, message, hint)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the keys that claim to have signed, in the file's order."""
        return tuple(self.envelope.signatures)

    def broken(self, signers: Signers) -> Iterator[Problem]:
        """Every signature that does not hold, or is by nobody we know."""
        for index, (name, signature) in enumerate(self.envelope.signatures.items()):
            signer = signers.by_key.get(name)
            if signer is None:
                known = ", ".join(sorted(signers.by_key))
                yield self.problem(
                    ("signatures", index), f"is by {name}, which is not in deploy_keys", f"There is: {known}."
                )
                continue
            try:
                SSlibKey.from_crypto(signer.key, keyid=name).verify_signature(signature, self.envelope.pae())
            except UnverifiedSignatureError:
                hint = f"Let {signer.person} sign again, or start anew: broker deploy sign --author"
                yield self.problem(("signatures", index), f"is not a signature by {name} over this payload", hint)

    def statement(self) -> Statement:
        """What was signed. Raises :class:`Problems`."""
        if self.envelope.payload_type != PAYLOAD_TYPE:
            raise Problems([self.problem(("payloadType",), f"is not {PAYLOAD_TYPE}")])
        try:
            return Statement.decode(self.envelope.payload)
        except Unsound as error:
            at = f"{error.field} in it " if error.field else ""
            raise Problems(
                [self.problem(("payload",), f"is no statement about a deploy set: {at}{error.message}")]
            ) from None


def fresh(statement: Statement) -> Envelope:
    """An envelope that nobody has signed yet."""
    return Envelope(statement.encode(), PAYLOAD_TYPE, {})


def add_signature(envelope: Envelope, key: Ed25519PrivateKey, name: str) -> None:
    """Sign; an earlier signature of the same key is replaced."""
    envelope.sign(CryptoSigner(key, SSlibKey.from_crypto(key.public_key(), keyid=name)))


def render(envelope: Envelope) -> str:
    """The file's text."""
    return json.dumps(envelope.to_dict(), indent=1) + "\n"


def _problem(document: Document, at: tuple[str | int, ...], message: str, hint: str = "") -> Problem:
    return Problem(document.file, document.line(at), ".".join(map(str, at)), message, hint)
