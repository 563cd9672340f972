"""Whether a deploy set is signed as it has to be, by people who are not all one person.

Pure: it judges the bytes that were read, the same bytes that the set is then made of. Does not belong here: the form
of the envelope (``envelope.py``), and which serials were in force before (the ledger).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.deployfiles.listing import ENVELOPE, Listing
from broker.deployfiles.signers import Signers
from broker.files import Problem, Problems
from broker.ports.deploys import AcceptedDeploy, DeploySet, Signed

if TYPE_CHECKING:
    from broker.deployfiles.envelope import Sealed
    from broker.deployfiles.statement import Statement


def verified(files: Listing, signers: Signers) -> Signed:
    """Who signed ``files``. Raises :class:`Problems` unless everything about the signatures is right.

    A signature that does not hold is refused although there are enough others: somebody made it.
    """
    if files.envelope is None:
        hint = f"deploy_keys is set: {_people(signers.required)} must sign. See: broker deploy sign --help"
        raise Problems([Problem(files.name(ENVELOPE), 1, "", "is missing", hint)])
    # A second of imports (the SDK of every cloud that the library can sign with): only where signatures are asked for.
    from broker.deployfiles.envelope import Sealed

    sealed = Sealed.parse(files.name(ENVELOPE), files.envelope)
    if broken := list(sealed.broken(signers)):
        raise Problems(broken)
    statement = sealed.statement()
    people = {signers.by_key[name].person for name in sealed.keys}
    if problems := list(_lacking(files, sealed, statement, people, signers)):
        raise Problems(problems)
    return Signed(statement.author, statement.serial, tuple(sorted(people)), tuple(sorted(sealed.keys)))


def _lacking(
    files: Listing, sealed: Sealed, statement: Statement, people: set[str], signers: Signers
) -> Iterator[Problem]:
    if statement.digest != files.digest():
        message = f"signs sha256:{statement.digest}, and the files are sha256:{files.digest()}"
        yield sealed.problem(("payload",), message, "Restore what was signed, or sign what is there.")
    if len(people) < signers.required:
        told = ", ".join(f"{each} (its author)" if each == statement.author else each for each in sorted(people))
        missing = ", ".join(sorted(signers.people - people))
        message = f"are by {_people(len(people))}, {told}; {signers.required} must sign"
        yield sealed.problem(("signatures",), message, f"Several keys of one person are one. Can sign, too: {missing}.")


def overtaken(shown: str, deploy: DeploySet, highest: AcceptedDeploy) -> Problem | None:
    """Why a signed set may not come (back) into force after ``highest`` did; None if it may."""
    signed = deploy.signed
    if signed is None or signed.serial > highest.serial or highest == (signed.serial, deploy.digest):
        return None
    what = "another set of that serial" if signed.serial == highest.serial else f"serial {highest.serial}"
    return Problem(
        f"{shown}/{ENVELOPE}",
        1,
        "serial",
        f"is {signed.serial}, and {what} has been in force (sha256:{highest.digest})",
        f"To go back on purpose, sign this content again, with a serial above {highest.serial}.",
    )


def _people(count: int) -> str:
    return "1 person" if count == 1 else f"{count} people"
