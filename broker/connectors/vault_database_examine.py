"""What an examination of a database engine finds: the token role, the mount, its roles and its connections.

Each check is of what a request would be refused for, or what would keep a login alive past its end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from broker.connectors.vault_database_statements import doubts_of_creation, doubts_of_revocation
from broker.connectors.vault_examine import NOBODYS, Rights
from broker.ports.connectors import Doubt, Severity

_UPDATE, _READ = frozenset({"update"}), frozenset({"read"})
# "token-" and an attempt's id (vault_database.py): what a login's name must hold in full.
_DISPLAY_NAME = 54
_COMMENT = re.compile(r"(#|//).*")
_PATHS = re.compile(r'path\s+"([^"]*)"', re.ASCII)
_CAPABILITIES = re.compile(r'"(create|read|update|patch|delete|list|scan|sudo|deny)"', re.ASCII)
_TRUNCATED = re.compile(r"\.DisplayName\s*\|\s*truncate\s+([0-9]+)", re.ASCII)


def rights(mount: str, token_role: str, roles: Sequence[str], policies: Iterable[str]) -> Rights:
    """What the connector needs of the server, as ``broker/dev/policies/broker.hcl`` gives it.

    ``policies``: the broker's own, and those of attempts.
    """
    lists = frozenset({"list", "sudo"})
    sweep = "logins whose reply was lost are not found"
    return Rights(
        needed={
            f"auth/token/create/{token_role}": (_UPDATE, "nothing can be issued"),
            "auth/token/revoke-accessor": (_UPDATE, "no attempt can be ended"),
            "sys/leases/renew": (_UPDATE, "no login gets its own end"),
            "sys/leases/lookup": (_UPDATE, "no end can be proven"),
            "sys/leases/revoke": (_UPDATE, "no login can be ended"),
            "auth/token/lookup-self": (_READ, "its own token cannot be kept alive"),
            "auth/token/renew-self": (_UPDATE, "its own token cannot be kept alive"),
            **{f"sys/leases/lookup/{mount}/creds/{role}": (lists, sweep) for role in roles},
        },
        forbidden={
            f"auth/token/roles/{token_role}": "change the token role",
            f"sys/mounts/{mount}": "change its own mount",
            f"{mount}/config/{NOBODYS}": "point the engine at another database",
            f"{mount}/roles/{NOBODYS}": "write what logins may do",
            **{f"sys/policies/acl/{name}": "write this policy" for name in policies},
        },
        closed={f"{mount}/creds/{role}": "make logins that belong to no attempt" for role in roles},
    )


def doubts_of_token_role(name: str, role: Mapping[str, Any], prefix: str, ceiling: timedelta) -> Iterator[Doubt]:
    """By the token role that makes the attempts' tokens."""

    def wrong(what: str, remedy: str) -> Doubt:
        return Doubt(Severity.ERROR, f"Token role {name} {what}.", f"bao write auth/token/roles/{name} {remedy}")

    if role.get("orphan") is not True:
        yield wrong("makes tokens that die with the broker's own: orphan is not true", "orphan=true ...")
    if role.get("renewable") is not False:
        yield wrong("makes tokens that can be renewed beyond their TTL", "renewable=false ...")
    if role.get("token_type") != "service":
        yield wrong("makes tokens without leases and accessors: token_type is not service", "token_type=service ...")
    if role.get("period") or role.get("token_period"):
        yield wrong("makes periodic tokens, which have no end", "token_period=0 ...")
    if role.get("token_no_default_policy") is not True:
        yield wrong("adds the default policy", "token_no_default_policy=true ...")
    allowed = [*(role.get("allowed_policies") or ()), *(role.get("allowed_policies_glob") or ())]
    if other := sorted(str(each) for each in allowed if not str(each).startswith(prefix)):
        remedy = f"allowed_policies= allowed_policies_glob='{prefix}*' ..."
        yield wrong(f"gives other policies than {prefix}*, too: {', '.join(map(ascii, other))}", remedy)
    if not allowed:
        yield wrong(f"allows no policy {prefix}*: nothing can be issued", f"allowed_policies_glob='{prefix}*' ...")
    yield from _short(f"Token role {name}", role.get("token_explicit_max_ttl"), ceiling)


def doubts_of_mount(mount: str, tuned: Mapping[str, Any], ceiling: timedelta) -> Iterator[Doubt]:
    """By the mount's own bounds."""
    yield from _short(f"Mount {mount}", tuned.get("max_lease_ttl"), ceiling)


def doubts_of_role(name: str, role: Mapping[str, Any], ceiling: timedelta) -> Iterator[Doubt]:
    """By a role's statements: what makes a login end, and end whole."""
    yield from doubts_of_revocation(name, _text(role.get("revocation_statements")))
    yield from doubts_of_creation(name, _text(role.get("creation_statements")))
    yield from _short(f"Role {name}", role.get("max_ttl"), ceiling)


def _text(statements: object) -> str:
    return "\n".join(map(str, statements)) if isinstance(statements, list) else ""


def doubts_of_attempt_policy(name: str, written: str | None, path: str) -> Iterator[Doubt]:
    """By the policy of one role's attempts, which is to read ``path`` and nothing else; None: there is none."""
    paths, capabilities = _gives(written or "")
    if not paths:
        what = f"There is no policy {name}, or it gives nothing: this role's attempts read no login."
    elif paths != [path] or capabilities != {"read"}:
        what = f"Policy {name} gives an attempt more than to read {path}."
    else:
        return
    yield Doubt(Severity.ERROR, what, f'Write it as the connector\'s page says: path "{path}", capability read.')


def _gives(policy: str) -> tuple[list[str], set[str]]:
    """The paths and the capabilities that a policy names, in HCL or in JSON."""
    if not policy.lstrip().startswith("{"):
        text = _COMMENT.sub("", policy)
        return _PATHS.findall(text), set(_CAPABILITIES.findall(text))
    try:
        paths = json.loads(policy)["path"]
        return list(paths), {str(each) for rule in paths.values() for each in rule["capabilities"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        return [], set()


def doubts_of_connection(name: str, connection: Mapping[str, Any], roles: Sequence[str]) -> Iterator[Doubt]:
    """By the connection that ``roles`` make their logins with."""
    details = connection.get("connection_details")
    details = details if isinstance(details, Mapping) else {}
    template = str(details.get("username_template") or "")
    cut = [int(each) for each in _TRUNCATED.findall(template)]
    if ".DisplayName" not in template or any(each < _DISPLAY_NAME for each in cut):
        yield Doubt(
            Severity.ERROR,
            f"The username_template of connection {name} does not hold {{{{.DisplayName}}}} in full: every login is"
            " refused, because it does not carry its attempt's id.",
            "Set it to '{{ printf \"%s-%s\" (.DisplayName | truncate 54) (random 8) }}'.",
        )
    if details.get("password_authentication") != "scram-sha-256":
        yield Doubt(
            Severity.WARNING,
            f"Connection {name} sends passwords to the database as they are: its log may hold them.",
            "Set password_authentication=scram-sha-256.",
        )
    allowed = connection.get("allowed_roles") or ()
    if "*" not in allowed and (barred := sorted(set(roles) - set(allowed))):
        yield Doubt(
            Severity.ERROR,
            f"Connection {name} is not for the roles {', '.join(barred)}: they make no logins.",
            "Add them to its allowed_roles, or remove the roles.",
        )


def _short(what: str, seconds: object, ceiling: timedelta) -> Iterator[Doubt]:
    """0, or nothing, is no bound of its own."""
    if isinstance(seconds, int) and 0 < seconds < ceiling.total_seconds():
        yield Doubt(
            Severity.WARNING,
            f"{what} ends everything after {seconds} s, and the connector promises up to {ceiling.total_seconds():g} s:"
            " what is asked for longer dies early.",
            f"Raise it to {ceiling.total_seconds():g} s, or keep every template's max_ttl below it.",
        )
