"""What the broker needs inside OpenBao for PostgreSQL: engine, roles, policies, and a small token if it keeps one.

The recipe an operator follows on a real OpenBao, in the order of :func:`configure_database`. The two
policies are the text files ``policies/broker.hcl`` and ``policies/attempt.hcl``. The mount and its
roles belong to the broker alone, because its sweep ends every lease it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

import hvac

from broker.dev.files import write_private
from broker.dev.openbao import OpenBaoFacts, answered, client_for
from broker.errors import InvalidInput, NotReady, Reason
from broker.secret import Secret

TOKEN_ROLE = "jit-attempt"  # noqa: S105 - a name, not a token
BROKER_POLICY = "jit-broker"
_BROKER_PERIOD = "24h"
_LONGEST_ATTEMPT = "1h"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z", re.ASCII)
_POLICIES = Path(__file__).with_name("policies")

# The login carries the attempt's id: DisplayName is the attempt token's, and the default template
# would cut it to 8 characters. 54 + 1 + 8 = 63, PostgreSQL's longest identifier.
USERNAME_TEMPLATE = '{{ printf "%s-%s" (.DisplayName | truncate 54) (random 8) }}'

# Why it is as it is: docs/connectors/vault-database.md. One text: the engine runs a statement with the word END in it
# as a whole, and splits every other at its semicolons.
REVOCATION_STATEMENTS = (Path(__file__).with_name("revocation.sql").read_text(),)
_TOKEN_ROLE_SETTINGS = {
    "allowed_policies_glob": ["jit-attempt-*"],
    "orphan": True,
    "renewable": False,
    "token_explicit_max_ttl": _LONGEST_ATTEMPT,
    "token_no_default_policy": True,
    "token_type": "service",  # only service tokens own leases and have accessors
}
_CREATE_LOGIN = (
    "CREATE ROLE \"{{name}}\" LOGIN CONNECTION LIMIT 20 PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
)
_USAGE = 'GRANT USAGE ON SCHEMA public TO "{{name}}";'

# The demo's roles. Privileges go to the login itself, not to a group it is a member of: as a member it
# could SET ROLE and make objects that outlive it.
DEMO_ROLES: Mapping[str, tuple[str, ...]] = {
    "orders-readonly": (
        _CREATE_LOGIN,
        _USAGE,
        'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";',
    ),
    "orders-readwrite": (
        _CREATE_LOGIN,
        'GRANT USAGE, CREATE ON SCHEMA public TO "{{name}}";',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{{name}}";',
        'GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "{{name}}";',
    ),
}


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """The PostgreSQL database behind the engine, and the login by which OpenBao makes and drops others."""

    host: str
    port: int
    database: str
    username: str
    password: Secret


@dataclass(frozen=True, slots=True)
class DatabaseEngineFacts:
    """What the broker's connector is told: where, with which token, and by which names."""

    address: str
    mount: str
    roles: tuple[str, ...]
    token_role: str
    broker_token_file: Path | None  # None: the broker logs in (openbao_jwt.py)
    target: DatabaseTarget

    def attempt_policy(self, role: str) -> str:
        """Name of the policy that lets an attempt's token read ``role`` and nothing else."""
        return _attempt_policy_name(role)

    def broker_token(self) -> Secret:
        """The broker's token, from its file. Raises :class:`NotReady` where it has none."""
        if self.broker_token_file is None:
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, "This OpenBao keeps no token for the broker: it logs in.")
        return Secret(self.broker_token_file.read_text().strip())

    def broker_client(self) -> hvac.Client:
        """A client that may do what the broker may do."""
        return client_for(self.address, self.broker_token())


def configure_database(
    bao: OpenBaoFacts,
    target: DatabaseTarget,
    *,
    token_file: Path | None,
    roles: Mapping[str, tuple[str, ...]] = DEMO_ROLES,
    mount: str = "database",
) -> DatabaseEngineFacts:
    """Set up everything the connector needs, again if it is already there, and leave the broker's token in a file.

    ``roles`` maps a role's name to its creation statements. A token that is in ``token_file`` and still
    valid is kept, so that a running broker is not cut off; without a file none is made. Raises
    :class:`InvalidInput` for a name that could be read as anything but a name, and hvac's errors if OpenBao refuses.
    """
    for name in (mount, *roles):
        _demand_name(name)
    client = bao.root_client()
    # By path, as ``bao write`` does it: an operator can follow line by line.
    if f"{mount}/" not in answered("sys/mounts", client.read("sys/mounts"))["data"]:
        client.write_data(f"sys/mounts/{mount}", data={"type": "database"})
    client.write_data(f"{mount}/config/{target.database}", data=_connection(target, sorted(roles)))
    for role, creation in roles.items():
        client.write_data(f"{mount}/roles/{role}", data=_role(target, creation))
        client.write_data(
            f"sys/policies/acl/{_attempt_policy_name(role)}", data={"policy": attempt_policy(mount, role)}
        )
    client.write_data(f"sys/policies/acl/{BROKER_POLICY}", data={"policy": broker_policy(mount)})
    client.write_data(f"auth/token/roles/{TOKEN_ROLE}", data=_TOKEN_ROLE_SETTINGS)
    if token_file is not None:
        _keep_or_make_token(bao, client, token_file)
    return DatabaseEngineFacts(bao.address, mount, tuple(sorted(roles)), TOKEN_ROLE, token_file, target)


def broker_policy(mount: str) -> str:
    """The broker's own policy, as HCL."""
    return Template((_POLICIES / "broker.hcl").read_text()).substitute(mount=mount, token_role=TOKEN_ROLE)


def attempt_policy(mount: str, role: str) -> str:
    """The policy of one attempt's token, as HCL."""
    return Template((_POLICIES / "attempt.hcl").read_text()).substitute(mount=mount, role=role)


def _attempt_policy_name(role: str) -> str:
    return f"jit-attempt-{role}"


def _connection(target: DatabaseTarget, roles: list[str]) -> dict[str, object]:
    return {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": roles,
        "connection_url": (
            f"host={target.host} port={target.port} dbname={target.database} sslmode=disable "
            "user={{username}} password={{password}}"
        ),
        "username": target.username,
        "password": target.password.reveal(),
        "username_template": USERNAME_TEMPLATE,
        # OpenBao then hashes a login's password itself: PostgreSQL's log can never hold it.
        "password_authentication": "scram-sha-256",
        "max_open_connections": 16,
        "max_idle_connections": 4,
    }


def _role(target: DatabaseTarget, creation: tuple[str, ...]) -> dict[str, object]:
    return {
        "db_name": target.database,
        "creation_statements": list(creation),
        "revocation_statements": list(REVOCATION_STATEMENTS),
        "default_ttl": _LONGEST_ATTEMPT,
        "max_ttl": _LONGEST_ATTEMPT,
    }


def _keep_or_make_token(bao: OpenBaoFacts, root: hvac.Client, token_file: Path) -> None:
    if token_file.exists() and client_for(bao.address, Secret(token_file.read_text().strip())).is_authenticated():
        return
    made = root.auth.token.create_orphan(
        policies=[BROKER_POLICY], period=_BROKER_PERIOD, no_default_policy=True, display_name="brokerd", renewable=True
    )
    write_private(token_file, made["auth"]["client_token"])


def _demand_name(name: str) -> None:
    """Names end up inside policy text; only what cannot be anything else gets there."""
    if not _NAME.match(name):
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"{name!a} is not a name for a mount or a role.",
            hint="Use lower-case letters, digits and inner hyphens.",
            metadata={"name": ascii(name)[:100]},
        )
