"""The ``canary`` of connectors: from the file to what is issued, and whether it could be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta

from broker.canary.canary import Canary
from broker.canary.request import access_request
from broker.deployfiles.models import ConnectorsFile
from broker.deployfiles.read import Read
from broker.errors import InvalidInput, Reason
from broker.files import Problem
from broker.files.document import Path
from broker.scope.bind import bind
from broker.scope.model import ScopeTemplate

# A run takes an upstream's time, and the trail's: more often tells nobody more.
_SHORTEST_EVERY = timedelta(seconds=10)
_LONGEST_TTL = timedelta(hours=1)
_FIELDS = {
    Reason.ACCOUNT_NOT_IN_TEMPLATE: "account",
    Reason.ENVIRONMENT_NOT_IN_TEMPLATE: "environment",
    Reason.TTL_TOO_LONG: "ttl",
    Reason.TTL_INVALID: "ttl",
    Reason.RESOURCE_NOT_IN_TEMPLATE: "resource",
}
_OF_PARAMETERS = frozenset({Reason.PARAMETER_FROM_IDENTITY, Reason.PARAMETER_UNKNOWN, Reason.PARAMETER_MISSING})


def canaries_of(file: Read[ConnectorsFile]) -> dict[str, Canary]:
    """The canaries of those connectors that have one, by connector."""
    return {
        name: Canary(
            connector=name,
            template=said.template,
            account=said.account,
            environment=said.environment,
            resource=said.resource,
            ttl=said.ttl,
            every=said.every,
            parameters=said.parameters,
        )
        for name, entry in file.content.connectors.items()
        if (said := entry.canary) is not None
    }


def unfit_canaries(
    file: Read[ConnectorsFile], canaries: Mapping[str, Canary], templates: Mapping[str, ScopeTemplate]
) -> Iterator[Problem]:
    """What is wrong with them: each is bound to its template as the broker will, so that nothing waits for its run."""
    for name, canary in canaries.items():
        at: Path = ("connectors", name, "canary")
        yield from (file.problem((*at, field), message, hint) for field, message, hint in _times(canary))
        template = templates.get(canary.template)
        if template is None or template.connector != name:
            fitting = ", ".join(sorted(each.name for each in templates.values() if each.connector == name)) or "none"
            told = "is no template" if template is None else f"is a template of connector {template.connector}"
            yield file.problem((*at, "template"), f"{canary.template} {told}", f"Of {name} there is: {fitting}.")
            continue
        try:
            bind(template, access_request(canary, "canary", "canary"))
        except InvalidInput as unfit:
            field = _field(unfit)
            yield file.problem((*at, *field), unfit.message.rstrip("."), _hint(unfit))


def _times(canary: Canary) -> Iterator[tuple[str, str, str]]:
    if not timedelta(seconds=1) <= canary.ttl <= _LONGEST_TTL:
        yield "ttl", "is not between 1 s and 1 h", "Each measurement of an expiry takes that long."
    if canary.every < _SHORTEST_EVERY:
        yield "every", f"is shorter than {_SHORTEST_EVERY.total_seconds():g} s", ""
    elif canary.every <= 2 * canary.ttl:
        yield "every", "is not longer than two of its credentials live", "Lengthen every, or shorten ttl."


def _field(unfit: InvalidInput) -> Path:
    if unfit.reason in _FIELDS:
        return (_FIELDS[unfit.reason],)
    if "parameter" in unfit.metadata:
        return ("parameters", unfit.metadata["parameter"])
    return ("parameters",) if unfit.reason in _OF_PARAMETERS else ("template",)


def _hint(unfit: InvalidInput) -> str:
    if unfit.reason is Reason.FIELD_REQUIRED_BY_TEMPLATE:
        return "A canary says reason, intent and step, and has nothing else to say: give it a template of its own."
    return unfit.hint
