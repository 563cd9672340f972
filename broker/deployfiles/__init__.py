"""What operators deploy, as files: read, checked as one set, and handed over as a :class:`DeploySet`.

The layout of a set::

    agents/*.yaml      registered agents: one each, or all whose SPIFFE ID has one form
    people.yaml        the humans who answer for agents
    templates/*.yaml   one scope template each
    connectors.yaml    the upstreams
    denied.yaml        who may not call, though registered (optional)
    trust_domains.yaml which agents of other trust domains may be registered (optional)
    policies/*.cedar   who may, under which circumstances
    policies/*.test.yaml  what they are expected to say (optional)
    signatures/set.dsse.json  who signed all of this (needed where brokerd has deploy_keys)

Belongs here: YAML shapes, cross-references, JSON Schemas. Does not belong here: what a template or a
policy means (``broker/scope``, ``broker/policy``).
"""

from broker.deployfiles.load import load
from broker.deployfiles.source import DeployFiles

__all__ = ["DeployFiles", "load"]
