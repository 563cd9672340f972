"""``broker deploy digest|sign|verify|keygen``: what people who sign deploy sets do, away from brokerd.

Needs no broker and no network. Belongs here: the four commands and how they print. What is signed and what suffices,
``broker/deployfiles`` says, as it does for brokerd.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from broker.cli.deploy_keys import Passphrase, read_passphrase, read_private_key, write_pair
from broker.cli.output import format_option
from broker.cli.problems import problems_told
from broker.config import load_config
from broker.deployfiles import listing
from broker.deployfiles.listing import Listing
from broker.deployfiles.signed import verified
from broker.deployfiles.signers import Signers, signers_of
from broker.deployfiles.statement import NAME
from broker.files import Problems
from broker.secret import Secret

_directory = click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
_passphrase_fd = click.option(
    "--passphrase-fd",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read the passphrase from this file descriptor (its first line).  [default: ask for it]",
)


@click.group()
def deploy() -> None:
    """Sign deploy sets, for a brokerd whose configuration has deploy_keys."""


@deploy.command()
@_directory
@problems_told
def digest(directory: Path) -> None:
    """Print the digest of the set in DIR: of every file's name and bytes, signatures excepted.

    It is what a signature is about, and what brokerd's log, metrics and audit trail call the set.
    """
    click.echo(f"sha256:{_read(directory).digest()}")


@deploy.command()
@_directory
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Your private key in PEM (Ed25519), which nobody else may read.",
)
@click.option("--as", "name", required=True, metavar="NAME", help="The key's name in brokerd's deploy_keys.")
@click.option(
    "--author", default="", metavar="NAME", help="Who wrote this set; starts anew where that is not what was signed."
)
@click.option(
    "--serial",
    type=int,
    metavar="N",
    help="With --author: this set's number, above that of every signed set before.  [default: one more than signed]",
)
@_passphrase_fd
@format_option("text", "json")
@problems_told
def sign(
    directory: Path, key_file: Path, name: str, author: str, serial: int | None, passphrase_fd: int | None, form: str
) -> None:
    """Sign the set in DIR, as it is there now, into DIR/signatures/set.dsse.json.

    The first who signs says --author and --serial; the others sign the same statement with neither. What is signed is
    printed: compare the digest with that of the files you have looked at.
    """
    # The library that signs takes a second to import: only here.
    from broker.deployfiles.signing import sign as sign_set

    if serial is not None and not author:
        raise click.UsageError("--serial is said together with --author.")
    if not NAME.fullmatch(name):
        raise click.UsageError("--as is the name of a key in deploy_keys: a-z 0-9 . _ -")
    key = read_private_key(key_file, _passphrase(passphrase_fd))
    made = sign_set(directory, key, name, author=author, serial=serial)
    statement = made.statement
    if form == "json":
        told = {**asdict(statement), "digest": f"sha256:{statement.digest}", "keys": made.keys, "dropped": made.dropped}
        click.echo(json.dumps(told, indent=2))
        return
    if made.dropped:
        click.echo(f"dropped, because they were about something else: {', '.join(made.dropped)}", err=True)
    by = ", ".join(made.keys)
    click.echo(f"signed sha256:{statement.digest}, author {statement.author}, serial {statement.serial}, by {by}")


@deploy.command()
@_directory
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="brokerd's configuration file, which says whose signatures are needed.",
)
@format_option("text", "json")
@problems_told
def verify(directory: Path, config_file: Path, form: str) -> None:
    """Say who signed the set in DIR; exits 1 unless everything about its signatures is right.

    Looks at signatures only: `broker check --config` says whether brokerd would load the set.
    """
    files = _read(directory)
    signed = verified(files, _signers(config_file))
    if form == "json":
        click.echo(json.dumps({"digest": f"sha256:{files.digest()}", **asdict(signed)}, indent=2))
        return
    click.echo(
        f"{directory}: signed by {', '.join(signed.signers)}; author {signed.author}, serial {signed.serial}, "
        f"sha256:{files.digest()}"
    )


@deploy.command()
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the private key goes.",
)
@click.option(
    "--public",
    "public_file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the public key goes, for brokerd's deploy_keys.",
)
@_passphrase_fd
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unencrypted.")
def keygen(key_file: Path, public_file: Path, passphrase_fd: int | None, no_passphrase: bool) -> None:
    """Make a key pair (Ed25519, PEM) to sign deploy sets with; files that are there are left alone.

    The same as: openssl genpkey -algorithm ed25519 -aes256 -out FILE; openssl pkey -in FILE -pubout
    """
    if no_passphrase and passphrase_fd is not None:
        raise click.UsageError("--no-passphrase and --passphrase-fd exclude each other.")
    word = None if no_passphrase else _passphrase(passphrase_fd, confirm=True)()
    write_pair(key_file, public_file, word)
    click.echo(f"{key_file}: keep it to yourself; {public_file}: goes into deploy_keys")


def _read(directory: Path) -> Listing:
    files = listing.read_set(directory)
    if files.problems:
        raise Problems(files.problems)
    return files


def _signers(config_file: Path) -> Signers:
    signers = signers_of(load_config(config_file))
    if signers is None:
        raise click.ClickException(f"{config_file} has no deploy_keys: its brokerd asks for no signatures.")
    return signers


def _passphrase(descriptor: int | None, *, confirm: bool = False) -> Passphrase:
    def ask() -> Secret:
        if descriptor is not None:
            return read_passphrase(descriptor)
        return Secret(click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=confirm))

    return ask
