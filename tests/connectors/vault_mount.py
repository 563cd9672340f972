"""Setting up more engines on the test's OpenBao: mounts, and what attempts and the broker may do there.

The broker of these has a token of its own, so that what the database connector is told of its token stays what it is.
"""

from __future__ import annotations

import hvac

from broker.dev.openbao_database import broker_policy
from broker.secret import Secret

POLICY = "jit-broker-engines"

# Of each mount, the path that credentials are made at.
_MOUNTS: dict[str, str] = {}
_MORE: list[str] = []


def mounted(root: hvac.Client, mount: str, engine: str, kind: str = "creds", options: object = None) -> bool:
    """Mount it if it is not there; whether it was not. The broker may end and list its leases then."""
    new = f"{mount}/" not in root.read("sys/mounts")["data"]
    if new:
        root.write_data(f"sys/mounts/{mount}", data={"type": engine, "options": options or {}})
    _MOUNTS[mount] = kind
    allow_broker(root)
    return new


def allow_broker(root: hvac.Client, more: str = "") -> None:
    """The broker's policy, for every mount that there is, and ``more`` from now on."""
    if more and more not in _MORE:
        _MORE.append(more)
    ours = ", ".join(f'"{mount}/{kind}/*"' for mount, kind in _MOUNTS.items())
    lists = [
        f'path "sys/leases/lookup/{path}" {{ capabilities = ["list", "sudo"] }}'
        for mount, kind in _MOUNTS.items()
        for path in (f"{mount}/{kind}", f"{mount}/{kind}/*")
    ]
    policy = broker_policy("none").replace('"none/creds/*"', ours)
    root.write_data(f"sys/policies/acl/{POLICY}", data={"policy": "\n".join([policy, *lists, *_MORE])})


def broker_token(root: hvac.Client) -> Secret:
    """A fresh token of a broker that these engines are for."""
    made = root.auth.token.create_orphan(
        policies=[POLICY], period="24h", no_default_policy=True, display_name="brokerd"
    )
    return Secret(made["auth"]["client_token"])


def allow_attempts(root: hvac.Client, role: str, policy: str) -> None:
    """What the token of an attempt at ``role`` may do."""
    root.write_data(f"sys/policies/acl/jit-attempt-{role}", data={"policy": policy})
