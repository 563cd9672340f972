"""What an examination of Vault or OpenBao finds, whatever the engine: whether it answers, and what the broker may do.

``sys/capabilities-self`` tells what the broker's own token may do at a path, and nothing is made or changed by
asking. It does not tell how ``allowed_parameters`` narrow that, so of leases it is tried with one that cannot be.
Belongs here: what is needed and forbidden on every such server. What an engine needs is said by its own connector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from broker.connectors.vault_answers import object_in, texts_in
from broker.connectors.vault_calls import OwnToken, VaultCalls
from broker.connectors.vault_http import VaultFailure
from broker.ports.connectors import Doubt, Severity

# Nothing is called so. Whoever may do something at a path of this name may do it at every path beside it.
NOBODYS = "jit-broker-examination"
_ANYWHERE = f"{NOBODYS}/{NOBODYS}"
NOBODYS_LEASE = f"{NOBODYS}/creds/none/none"
_OWN_PAGE = "See the connector's page, and give the broker exactly that policy."
# What changes or opens something; "root" is the answer of a root token.
_CHANGES = frozenset({"create", "update", "patch", "delete", "sudo", "root"})
_ALL = _CHANGES | {"read", "list"}
# What no connector needs, and what having it would mean.
_FORBIDDEN: Mapping[str, str] = {
    f"sys/policies/acl/{NOBODYS}": "write policies, and so give itself everything",
    "auth/token/create": "make tokens without the token role",
    "auth/token/create-orphan": "make tokens without the token role",
    f"auth/token/roles/{NOBODYS}": "make token roles",
    f"sys/mounts/{NOBODYS}": "mount engines",
    f"sys/auth/{NOBODYS}": "let others log in",
    f"sys/audit/{NOBODYS}": "switch auditing off",
    f"sys/leases/revoke-prefix/{NOBODYS}": "end everybody's leases",
    f"sys/leases/revoke-force/{NOBODYS}": "forget everybody's leases without ending them",
    f"sys/plugins/catalog/database/{NOBODYS}": "register plug-ins",
    f"sys/raw/{NOBODYS}": "read the storage",
    "sys/storage/raft/snapshot": "copy the storage",
    "sys/seal": "seal the server",
    "identity/entity": "make identities",
}
# Mounts that every token with an identity, or this very examination, has something of.
_EVERYBODYS = frozenset({"sys/", "cubbyhole/", "identity/"})


@dataclass(frozen=True, slots=True)
class Rights:
    """What a connector needs, by path, each with what for; and what it must not have, likewise.

    Of ``needed``: (capability, what fails without). Of ``forbidden``, changing anything there is meant; at ``closed``
    paths reading is forbidden, too.
    """

    needed: Mapping[str, tuple[frozenset[str], str]]
    forbidden: Mapping[str, str]
    closed: Mapping[str, str]

    def paths(self) -> tuple[str, ...]:
        """Everything that has to be asked about."""
        return tuple({_ANYWHERE: 0, **dict.fromkeys((*self.needed, *self.forbidden, *self.closed, *_FORBIDDEN))})

    def doubts(self, told: Mapping[str, frozenset[str]]) -> Iterator[Doubt]:
        """By the server's answer: the capabilities at each of :meth:`paths`."""
        for path, (capabilities, why) in self.needed.items():
            if "root" not in told[path] and (lacking := sorted(capabilities - told[path])):
                yield Doubt(Severity.ERROR, f"The broker lacks {', '.join(lacking)} on {path}: {why}.", _OWN_PAGE)
        if told[_ANYWHERE] & _ALL:
            what = 'The broker has rights at every path (a policy of the form path "*"), and needs a handful.'
            yield Doubt(Severity.ERROR, what, _OWN_PAGE)
        elif wide := sorted(self._wide(told)):
            yield Doubt(Severity.ERROR, f"The broker may do what it must not: {'; '.join(wide)}.", _OWN_PAGE)

    def _wide(self, told: Mapping[str, frozenset[str]]) -> Iterator[str]:
        for paths, meant in (({**_FORBIDDEN, **self.forbidden}, _CHANGES), (self.closed, _ALL)):
            yield from (f"{may} ({path})" for path, may in paths.items() if told[path] & meant)


def unreachable(failure: VaultFailure) -> Doubt:
    """The very first question was not answered, or the broker is refused."""
    if failure.status in (401, 403):
        what = f"The broker itself is refused: {failure.what}."
        remedy = "Put a fresh token where the connector's `token` refers to, or mend the role that it logs in as."
    elif "is sealed" in failure.told:
        what, remedy = "It is sealed.", "Unseal it. Nothing is issued until then, and what is to be revoked waits."
    else:
        what = f"It cannot be asked: {failure.what}."
        remedy = "Check the connector's address and ca_file, the network between, and whether the server is active."
    return Doubt(Severity.ERROR, what, remedy)


def doubts_of_token(token: OwnToken, *, logs_in: bool = False) -> Iterator[Doubt]:
    """By what the server says of the broker's own token; one of a login (``logs_in``) ends, and is had anew."""
    fresh = "Make one as the connector's page says: orphan, periodic, without the default policy."
    if "root" in token.policies:
        yield Doubt(Severity.ERROR, "The broker's own token is a root token: it may do everything.", fresh)
    if "default" in token.policies:
        yield Doubt(Severity.WARNING, "The broker's own token has the default policy, too.", fresh)
    if not logs_in and token.ends and not token.renewable:
        yield Doubt(Severity.WARNING, "The broker's own token ends, and cannot be renewed.", fresh)
    if not logs_in and not token.orphan:
        yield Doubt(Severity.WARNING, "The broker's own token dies with the one that it was made by.", fresh)


def doubts_of_mounts(seen: tuple[str, ...], own: str) -> Iterator[Doubt]:
    """``seen``: the mounts that the broker has something of; a connector of another engine may account for one."""
    if others := sorted(set(seen) - _EVERYBODYS - {f"{own}/"}):
        yield Doubt(
            Severity.WARNING,
            f"The broker also has rights in the mounts {', '.join(others)}.",
            "Is each of them another connector's, which shares this one's token or login? Else take the rights away.",
        )


def doubts_of_leases(may: tuple[str, ...]) -> Iterator[Doubt]:
    """``may``: what the broker may do to a lease that is nobody's, and so to everybody's."""
    if may:
        yield Doubt(
            Severity.ERROR,
            f"The broker may {' and '.join(may)} leases that are not of its mount.",
            "Narrow sys/leases/* by allowed_parameters, as the policy on the connector's page does.",
        )


def doubts_of_cluster(calls: VaultCalls) -> Iterator[Doubt]:
    """Whether the server says which it is; blocks. Anybody may ask that, so no right is lacking where it does not."""
    try:
        told = calls.cluster_id()
    except VaultFailure:
        told = ""
    if not told:
        yield Doubt(
            Severity.WARNING,
            "It does not tell which cluster it is (sys/health, cluster_id).",
            "Let the broker reach /v1/sys/health there. Until then, do not give this connector another address while"
            " leases of it live: what is not found there would be taken for ended.",
        )


def not_told(what: str, failure: VaultFailure) -> Doubt:
    """Something could not be looked at: it is neither right nor wrong."""
    return Doubt(
        Severity.WARNING,
        f"Whether {what} cannot be told: {failure.what}.",
        "Give the broker the rights to look that stand at the end of the policy on the connector's page.",
    )


def examined(calls: VaultCalls, wanted: Rights, *, logs_in: bool) -> list[Doubt]:
    """What there is to find on every such server: who the broker is there, and what it may do. Blocks."""
    try:
        token = calls.own_token()
    except VaultFailure as failure:
        return [unreachable(failure)]
    found = list(doubts_of_token(token, logs_in=logs_in))
    if "root" in token.policies:  # everything is said already
        return found
    try:
        paths = list(wanted.paths())
        told = object_in(calls.write("sys/capabilities-self", {"paths": paths}), "data")
        found += wanted.doubts({path: frozenset(texts_in(told, path)) for path in paths})
        return [*found, *doubts_of_cluster(calls)]
    except VaultFailure as failure:
        return [*found, not_told("the broker has the rights it needs, and no more", failure)]
