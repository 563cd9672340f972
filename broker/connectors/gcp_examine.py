"""What an examination finds of the service accounts that the broker impersonates, or lends. Blocks; changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from broker.connectors.gcp_accounts import Accounts
from broker.connectors.gcp_http import GcpFailure
from broker.ports.connectors import Doubt, Severity

_IMPERSONATE = ("iam.serviceAccounts.getAccessToken",)
_LEND = ("iam.serviceAccounts.disable", "iam.serviceAccounts.enable", "iam.serviceAccounts.get")
# What would let whoever has the broker's credential make something that outlives its leases, or the account's end.
_TOO_MUCH = (
    "iam.serviceAccountKeys.create",
    "iam.serviceAccounts.actAs",
    "iam.serviceAccounts.delete",
    "iam.serviceAccounts.getOpenIdToken",
    "iam.serviceAccounts.implicitDelegation",
    "iam.serviceAccounts.setIamPolicy",
    "iam.serviceAccounts.signBlob",
    "iam.serviceAccounts.signJwt",
    "iam.serviceAccounts.update",
)
_ROLES = "Give the broker the custom role of deploy/gcp on it, and take every other of its roles on it away."


def doubts_of_account(accounts: Accounts, email: str, *, lends: bool, buckets: Sequence[str] = ()) -> list[Doubt]:
    """Of one service account; ``lends``: the broker enables and disables it, and it is nobody else's."""
    needed = (*_IMPERSONATE, *(_LEND if lends else ()))
    try:
        has = accounts.permitted(email, (*needed, *_TOO_MUCH))
    except GcpFailure as failure:
        return [_failed(email, failure)]
    return [
        *_of_rights(email, has, needed),
        *_asked(email, "the keys of", partial(_of_keys, accounts, email)),
        *(_asked(email, "who may use", partial(_of_others, accounts, email)) if lends else ()),
        *_of_buckets(accounts, email, buckets),
    ]


def _of_rights(email: str, has: frozenset[str], needed: Sequence[str]) -> Iterator[Doubt]:
    if missing := [each for each in needed if each not in has]:
        yield Doubt(Severity.ERROR, f"The broker has no {', '.join(missing)} on {email}.", _ROLES)
    if more := [each for each in _TOO_MUCH if each in has]:
        yield Doubt(Severity.ERROR, f"The broker may do more with {email} than it needs: {', '.join(more)}.", _ROLES)


def _of_keys(accounts: Accounts, email: str) -> Iterator[Doubt]:
    if count := accounts.user_keys(email):
        yield Doubt(
            Severity.ERROR,
            f"{email} has {count} keys that somebody made: whoever holds one is that account without the broker.",
            f"Delete them: gcloud iam service-accounts keys list --iam-account={email} --managed-by=user.",
        )


def _of_others(accounts: Accounts, email: str) -> Iterator[Doubt]:
    members = {str(member) for each in accounts.bindings(email) for member in each.get("members", [])}
    if len(members) > 1:
        yield Doubt(
            Severity.ERROR,
            f"{len(members)} members have roles on {email}; an account of a pool is the broker's alone.",
            f"Look with gcloud iam service-accounts get-iam-policy {email}; leave the broker's role alone.",
        )


def _of_buckets(accounts: Accounts, email: str, buckets: Sequence[str]) -> Iterator[Doubt]:
    for bucket in buckets:
        yield from _asked(email, f"the members of {bucket} for", partial(_of_bucket, accounts, email, bucket))


def _of_bucket(accounts: Accounts, email: str, bucket: str) -> Iterator[Doubt]:
    if f"serviceAccount:{email}" not in accounts.bucket_members(bucket):
        yield Doubt(
            Severity.ERROR,
            f"{email} has no role on {bucket}: what is lent of it can do nothing there.",
            "Bind every account of the pool: deploy/gcp does.",
        )


def _asked(email: str, what: str, ask: Callable[[], Iterator[Doubt]]) -> list[Doubt]:
    try:
        return list(ask())
    except GcpFailure as failure:
        remedy = "Give the broker the custom role of deploy/gcp, which may look."
        return [
            Doubt(Severity.WARNING, f"{what[0].upper()}{what[1:]} {email} could not be told: {failure.what}.", remedy)
        ]


def _failed(email: str, failure: GcpFailure) -> Doubt:
    if failure.not_there:
        return Doubt(
            Severity.ERROR, f"There is no service account {email}.", "Make it, or take it out of the settings."
        )
    return Doubt(Severity.ERROR, f"{email} cannot be looked at: {failure.what}.", _ROLES)
