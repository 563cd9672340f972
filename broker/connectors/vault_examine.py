"""What an examination of Vault or OpenBao finds: whether it answers, and what the broker's own token is.

Nothing is made or changed by any of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from broker.connectors.vault_calls import OwnToken
from broker.connectors.vault_http import VaultFailure
from broker.ports import Doubt, Severity


def unreachable(failure: VaultFailure) -> Doubt:
    """The very first question was not answered, or the token is refused."""
    if failure.status in (401, 403):
        what = f"The broker's own token is refused: {failure.what}."
        remedy = "Put a fresh token where the connector's `token` refers to; nothing is issued or revoked without it."
    elif "is sealed" in failure.told:
        what, remedy = "It is sealed.", "Unseal it. Nothing is issued until then, and what is to be revoked waits."
    else:
        what = f"It cannot be asked: {failure.what}."
        remedy = "Check the connector's address and ca_file, the network between, and whether the server is active."
    return Doubt(Severity.ERROR, what, remedy)


def doubts_of_token(token: OwnToken) -> Iterator[Doubt]:
    """By what the server says of the broker's own token."""
    fresh = "Make one as the connector's page says: orphan, periodic, without the default policy."
    if "root" in token.policies:
        yield Doubt(Severity.ERROR, "The broker's own token is a root token: it may do everything.", fresh)
    if "default" in token.policies:
        yield Doubt(Severity.WARNING, "The broker's own token has the default policy, too.", fresh)
    if token.ends and not token.renewable:
        yield Doubt(Severity.WARNING, "The broker's own token ends, and cannot be renewed.", fresh)
    if not token.orphan:
        yield Doubt(Severity.WARNING, "The broker's own token dies with the one that it was made by.", fresh)
