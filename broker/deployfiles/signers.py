"""Whose signatures a deploy set needs: the keys of ``deploy_keys``, each a person's, and how many people.

Keys are read once, at start, from brokerd's own configuration: a set cannot choose its own signers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from broker.config import Config, DeployKey
from broker.files import Problem, Problems, read_text
from broker.files.public_keys import ed25519_public_key


@dataclass(frozen=True, slots=True)
class Signer:
    """One key and the person it belongs to; one person may have several."""

    person: str
    key: Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signers:
    """``by_key``: name of the key to its signer. ``required``: how many *people* must sign, two at least."""

    by_key: Mapping[str, Signer]
    required: int

    def __post_init__(self) -> None:
        """Raises :class:`ValueError` where one person could do it, or all of them could not."""
        if not 2 <= self.required <= len(self.people):
            raise ValueError(f"2 <= required <= people must hold: {self.required}, {len(self.people)}")
        if len({each.key.public_bytes_raw() for each in self.by_key.values()}) != len(self.by_key):
            raise ValueError("one key is named twice, and could sign for two people")

    @property
    def people(self) -> frozenset[str]:
        """Everybody who can sign."""
        return frozenset(each.person for each in self.by_key.values())


def signers_of(config: Config) -> Signers | None:
    """The signers of a configuration; None where sets need no signatures. Raises :class:`Problems`."""
    deploy = config.deploy
    if not deploy.deploy_keys:
        return None
    problems: list[Problem] = []
    found: dict[str, Signer] = {}
    for name, entry in deploy.deploy_keys.items():
        try:
            found[name] = Signer(entry.person, _key(name, entry))
        except Problems as unfit:
            problems.extend(unfit.problems)
    problems.extend(_twice(found, config))
    if problems:
        raise Problems(problems)
    # Checked with the configuration; a missing number would be refused below.
    return Signers(found, deploy.deploy_signatures_required or 0)


def _key(name: str, entry: DeployKey) -> Ed25519PublicKey:
    if entry.file is None:  # its text was checked with the configuration
        return ed25519_public_key(entry.pem or "")
    try:
        return ed25519_public_key(read_text(entry.file, str(entry.file)))
    except ValueError as error:
        hint = "See: broker deploy keygen --help"
        raise Problems([Problem(str(entry.file), 1, f"deploy_keys.{name}", str(error), hint)]) from None


def _twice(found: Mapping[str, Signer], config: Config) -> Iterator[Problem]:
    """One key under two names would let one person sign as two."""
    first: dict[bytes, str] = {}
    for name, signer in found.items():
        other = first.setdefault(signer.key.public_bytes_raw(), name)
        if other != name:
            at = ("deploy", "deploy_keys", name)
            yield config.problem(at, f"is the same key as {other}", "Each person has keys of their own.")
