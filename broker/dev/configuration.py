"""brokerd's configuration for the embedded default, written from the facts of the running stack."""

from __future__ import annotations

import yaml

from broker.dev.identity_provider import CLIENT_ID, ON_BEHALF_OF
from broker.dev.stack import DevFacts
from broker.dev.webhook_receiver import WebhookReceiver

TENANT = "dev"
# As the groups of deploy/dev/people.yaml are meant.
ROLES = {
    "viewer": ["data-platform"],
    "approver": ["data-platform", "release", "security"],
    "operator": ["operations"],
    "security": ["security"],
}


def render(facts: DevFacts, notify: WebhookReceiver | None = None) -> str:
    """``brokerd.yaml``: everything on loopback, every path inside the stack's state directory.

    ``notify`` is told of break-glass, where somebody is there to be told.
    """
    admin = {"admin": facts.admin_address} if facts.issuer else {}
    document = {
        "tenant": TENANT,
        "trust_domain": facts.trust_domain,
        "listen": {"agents": facts.api_address, **admin, "operations": f"127.0.0.1:{facts.ops_port}"},
        "identity": {"workload_api": facts.broker_endpoint},
        **({"people": {"issuers": {facts.issuer: _issuer(facts)}}} if facts.issuer else {}),
        "roles": ROLES,
        "deploy": {"directory": str(facts.deploy)},
        "state": {"directory": str(facts.ledger.parent), "ballast": "1MiB"},
        "keys": {"ledger": [f"file:{facts.mac_key}"]},
        "audit": {"export_file": str(facts.state / "audit.jsonl")},
        # Short, so that what is swept after a crash is proven gone within seconds.
        "limits": {"issue_timeout": "5s", "drain_timeout": "10s"},
        "revocation": {"tick": "250ms"},
        **({} if notify is None else {"notify": {"people": _told(notify)}}),
    }
    return "# Written at each start of `broker dev`; edits are lost.\n" + yaml.safe_dump(document, sort_keys=False)


def _told(receiver: WebhookReceiver) -> dict[str, object]:
    return {"url": receiver.url, "secrets": [f"file:{receiver.secret_file}"], "events": ["break_glass.*"]}


def _issuer(facts: DevFacts) -> dict[str, object]:
    return {
        "audience": CLIENT_ID,
        "on_behalf_of_audience": ON_BEHALF_OF,
        "groups_claim": "groups",
        "known_as": facts.issuer_known_as,
    }
