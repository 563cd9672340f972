"""From what an agent asked to exactly what it may get, or the reason why not.

Belongs here: every check that needs only the template, the request and what the registry's pattern names
of the caller's SPIFFE ID. What is bound is the template's own data plus values that passed a typed
parameter; nothing else of request or identity enters a :class:`~broker.scope.model.Scope`, so no text of
an agent, not even its name, can widen a grant. (The agent's own public key goes along; it grants nothing.)

Does not belong here: whether the agent may (policy), and what the connector's contract allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from broker.errors import Defect, InvalidInput, Reason
from broker.scope.blank import blank, refuse_blank
from broker.scope.canonical import JsonValue
from broker.scope.model import FromIdentity, Scope, ScopeTemplate
from broker.scope.parameters import shown
from broker.scope.request import AccessRequest

# An agent with an entry of its own: nothing of its id is named.
NO_SEGMENTS: Mapping[str, str] = MappingProxyType({})
_SHORTEST_WRAP = timedelta(seconds=1)
# What an agent says of its request; it may say nothing, but not by characters that nobody can see.
_SAID = ("step", "intent", "reason", "ticket", "prompt", "tool_call", "plan")


def bind(template: ScopeTemplate, request: AccessRequest, segments: Mapping[str, str] = NO_SEGMENTS) -> Scope:
    """The scope that ``request`` asks for under ``template``, by a caller whose SPIFFE ID has these named ``segments``.

    Raises :class:`InvalidInput` with the reason of the first check that fails, in this order:
    mandatory fields (all missing ones named), texts that say nothing, account, environment, resource, parameters (of
    the request, then of the identity), TTL, wrapping.
    """
    if request.template != template.name:
        raise Defect(Reason.INTERNAL, f"A request for {shown(request.template)} met the template {template.name}.")
    _check_mandatory(template, request)
    _check_said(request)
    _check_listed("account", request.account, template.accounts, Reason.ACCOUNT_NOT_IN_TEMPLATE, template)
    _check_listed(
        "environment", request.environment, template.environments, Reason.ENVIRONMENT_NOT_IN_TEMPLATE, template
    )
    # In this order: what is told first is what the docstring says.
    resource = _resource(template, request)
    parameters = _parameters(template, request, segments)
    return Scope(
        template=template.name,
        template_digest=template.digest,
        connector=template.connector,
        account=request.account,
        environment=request.environment,
        resource=resource,
        access=template.access,
        actions=template.actions,
        parameters=parameters,
        ttl=_ttl(template, request),
        grant=_grant(template, parameters),
        risk=template.risk,
        subject_public_key=request.subject_public_key,
        wrap=_wrap(template, request),
    )


def _check_mandatory(template: ScopeTemplate, request: AccessRequest) -> None:
    missing = [field for field in template.mandatory if blank(str(getattr(request, field)))]
    if missing:
        missing.sort()
        names = ", ".join(missing)
        raise InvalidInput(
            Reason.FIELD_REQUIRED_BY_TEMPLATE,
            f"The template {template.name} requires {names}.",
            hint="Say it in the request.",
            metadata={"template": template.name, "fields": ",".join(missing)},
        )


def _check_said(request: AccessRequest) -> None:
    # Policies ask whether there is a ticket or a plan: what nobody could read must not pass for one.
    for field in _SAID:
        if text := getattr(request, field):
            refuse_blank(field, text)


def _check_listed(field: str, value: str, allowed: frozenset[str], reason: Reason, template: ScopeTemplate) -> None:
    if value in allowed:
        return
    listed = ", ".join(sorted(allowed))
    told = f"does not cover the {field} {shown(value)}" if value else f"needs the {field} to be named"
    raise InvalidInput(
        reason,
        f"The template {template.name} {told}.",
        hint=f"It covers: {listed}.",
        metadata={"template": template.name, field: shown(value), "allowed": ",".join(sorted(allowed))},
    )


def _resource(template: ScopeTemplate, request: AccessRequest) -> str:
    try:
        return template.resource.parse(request.resource)
    except InvalidInput as error:
        raise InvalidInput(
            Reason.RESOURCE_NOT_IN_TEMPLATE,
            f"The template {template.name} does not cover the resource {shown(request.resource)}.",
            hint=error.hint,
            metadata={
                "template": template.name,
                "resource": shown(request.resource),
                "expected": template.resource.expected,
            },
        ) from None


def _parameters(template: ScopeTemplate, request: AccessRequest, segments: Mapping[str, str]) -> dict[str, str]:
    if request.parameters.keys() != template.parameters.keys() or template.from_identity:
        _check_names(template, request)
    values = {name: parameter.parse(request.parameters[name]) for name, parameter in template.parameters.items()}
    for name, source in template.from_identity.items():
        values[name] = _of_identity(template, source, segments)
    return dict(sorted(values.items()))


def _check_names(template: ScopeTemplate, request: AccessRequest) -> None:
    # Refused even where it is equal: a value has one source, and a request one spelling and one digest.
    if sent := sorted(request.parameters.keys() & template.from_identity.keys()):
        hint = "Leave it out: its value is read from your SPIFFE ID."
        raise _wrong_names(Reason.PARAMETER_FROM_IDENTITY, template, "takes no value for the parameter", sent, hint)
    if unknown := sorted(request.parameters.keys() - template.parameters.keys()):
        declared = ", ".join(sorted(template.parameters)) or "none"
        raise _wrong_names(Reason.PARAMETER_UNKNOWN, template, "has no parameter", unknown, f"It has: {declared}.")
    if missing := sorted(template.parameters.keys() - request.parameters.keys()):
        hint = " ".join(f"{name} must be {template.parameters[name].expected}." for name in missing)
        raise _wrong_names(Reason.PARAMETER_MISSING, template, "needs the parameter", missing, hint)


def _of_identity(template: ScopeTemplate, source: FromIdentity, segments: Mapping[str, str]) -> str:
    value = segments.get(source.segment)
    if value is None:
        raise InvalidInput(
            Reason.SEGMENT_NOT_IN_IDENTITY,
            f"The template {template.name} takes {source.parameter.name} from the segment {source.segment} of the"
            " caller's SPIFFE ID, and the caller's has none that is named so.",
            hint="Use another template, or have an operator register you by a pattern that names it.",
            metadata={"template": template.name, "parameter": source.parameter.name, "segment": source.segment},
        )
    try:
        return source.parameter.parse(value)
    except InvalidInput as error:
        raise InvalidInput(
            error.reason,
            f"The template {template.name} takes {source.parameter.name} from the segment {source.segment} of the"
            f" caller's SPIFFE ID, which is {shown(value)}: it is not for this caller.",
            hint=error.hint,
            metadata={**error.metadata, "template": template.name, "segment": source.segment},
        ) from None


def _grant(template: ScopeTemplate, parameters: Mapping[str, str]) -> Mapping[str, JsonValue]:
    """The template's own; a field that *is* a parameter gets that value, whole. Texts with parameters inside
    stay as they are: the connector builds them, and knows what its upstream would read into a character.
    """
    named = {}
    for field, value in template.grant.items():
        # Texts nearly always, and those name none; asking an abstract class is dear.
        if value.__class__ is not str and (name := _reference(value)) is not None:
            named[field] = name
    if not named:
        return template.grant
    if unknown := sorted(set(named.values()) - parameters.keys()):
        raise Defect(Reason.INTERNAL, f"The grant of template {template.name} names {shown(unknown[0])}, no parameter.")
    return {**template.grant, **{field: parameters[name] for field, name in named.items()}}


def _reference(value: JsonValue) -> str | None:
    if isinstance(value, Mapping) and value.keys() == {"parameter"} and isinstance(value["parameter"], str):
        return value["parameter"]
    return None


def _wrong_names(reason: Reason, template: ScopeTemplate, what: str, names: list[str], hint: str) -> InvalidInput:
    told = ", ".join(shown(name) for name in names[:8])
    return InvalidInput(
        reason,
        f"The template {template.name} {what} {told}.",
        hint=hint,
        metadata={"template": template.name, "parameters": told},
    )


def _ttl(template: ScopeTemplate, request: AccessRequest) -> timedelta:
    if timedelta(0) < request.ttl <= template.max_ttl:
        return request.ttl
    asked, longest = _seconds(request.ttl), _seconds(template.max_ttl)
    metadata = {"template": template.name, "ttlSeconds": asked, "maxTtlSeconds": longest}
    if request.ttl <= timedelta(0):
        raise InvalidInput(
            Reason.TTL_INVALID,
            f"A TTL of {asked} s is none.",
            hint=f"Ask for more than 0 s and at most {longest} s.",
            metadata=metadata,
        )
    raise InvalidInput(
        Reason.TTL_TOO_LONG,
        f"The template {template.name} allows {longest} s, not {asked} s.",
        hint=f"Ask for {longest} s or less, and again when it is over.",
        metadata=metadata,
    )


def _wrap(template: ScopeTemplate, request: AccessRequest) -> timedelta | None:
    if request.wrap is None:
        return None
    if not template.wrapping:
        raise InvalidInput(
            Reason.WRAPPING_NOT_ALLOWED,
            f"The template {template.name} does not let its credentials be wrapped.",
            hint="Ask without wrap; operators: `wrapping: allowed`, in the template.",
            metadata={"template": template.name, "field": "wrap"},
        )
    if _SHORTEST_WRAP <= request.wrap <= request.ttl:
        return request.wrap
    asked, longest = _seconds(request.wrap), _seconds(request.ttl)
    raise InvalidInput(
        Reason.WRAP_TTL_INVALID,
        f"A credential cannot be kept wrapped for {asked} s: from 1 s to its own TTL, which is {longest} s.",
        hint=f"Ask for wrap from 1 s to {longest} s.",
        metadata={"template": template.name, "field": "wrap", "wrapSeconds": asked, "ttlSeconds": longest},
    )


def _seconds(ttl: timedelta) -> str:
    # In whole microseconds: a float would round 0.3 s and write a year as 3.2e+07.
    whole, rest = divmod(abs(ttl) // timedelta(microseconds=1), 1_000_000)
    told = f"{whole}.{rest:06}".rstrip("0") if rest else str(whole)
    return f"-{told}" if ttl < timedelta(0) else told
