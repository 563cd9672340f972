"""What every entry of connectors.yaml may say, whatever its kind: its canary.

The ``...Connector`` of each kind is made from :class:`ConnectorModel`.
"""

from __future__ import annotations

from pydantic import Field

from broker.deployfiles.kinds_fields import Text
from broker.files import Duration, Model


class CanaryEntry(Model):
    """What the broker issues to itself, uses, and uses on after its end, to measure this connector's contract."""

    template: Text = Field(description="One of this connector's; best one that can read and nothing else.")
    account: Text
    environment: Text
    resource: Text
    parameters: dict[Text, str] = Field(default_factory=dict)
    ttl: Duration = Field(description="How long the credential of a canary lives if nobody ends it.")
    every: Duration = Field(description="How often each bound is measured.")


class ConnectorModel(Model):
    """The entry of any kind."""

    canary: CanaryEntry | None = None
