"""From what an agent asked to exactly what it may get, or the reason why not.

Belongs here: every check that needs only the template and the request. What is bound is the
template's own data plus values that passed a typed parameter; nothing else of the request enters a
:class:`~broker.scope.model.Scope`, so no text of an agent can widen a grant.

Does not belong here: whether the agent may (policy), and what the connector's contract allows.
"""

from __future__ import annotations

from datetime import timedelta

from broker.errors import Defect, InvalidInput, Reason
from broker.scope.model import Scope, ScopeTemplate
from broker.scope.parameters import shown
from broker.scope.request import AccessRequest


def bind(template: ScopeTemplate, request: AccessRequest) -> Scope:
    """The scope that ``request`` asks for under ``template``.

    Raises :class:`InvalidInput` with the reason of the first check that fails, in this order:
    mandatory fields (all missing ones named), account, environment, resource, parameters, TTL.
    """
    if request.template != template.name:
        raise Defect(Reason.INTERNAL, f"A request for {shown(request.template)} met the template {template.name}.")
    _check_mandatory(template, request)
    _check_listed("account", request.account, template.accounts, Reason.ACCOUNT_NOT_IN_TEMPLATE, template)
    _check_listed(
        "environment", request.environment, template.environments, Reason.ENVIRONMENT_NOT_IN_TEMPLATE, template
    )
    return Scope(
        template=template.name,
        template_digest=template.digest,
        connector=template.connector,
        account=request.account,
        environment=request.environment,
        resource=_resource(template, request),
        access=template.access,
        actions=template.actions,
        parameters=_parameters(template, request),
        ttl=_ttl(template, request),
        grant=template.grant,
    )


def _check_mandatory(template: ScopeTemplate, request: AccessRequest) -> None:
    missing = [field for field in template.mandatory if not str(getattr(request, field)).strip()]
    if missing:
        missing.sort()
        names = ", ".join(missing)
        raise InvalidInput(
            Reason.FIELD_REQUIRED_BY_TEMPLATE,
            f"The template {template.name} requires {names}.",
            hint="Say it in the request.",
            metadata={"template": template.name, "fields": ",".join(missing)},
        )


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


def _parameters(template: ScopeTemplate, request: AccessRequest) -> dict[str, str]:
    if unknown := sorted(request.parameters.keys() - template.parameters.keys()):
        declared = ", ".join(sorted(template.parameters)) or "none"
        raise _wrong_names(Reason.PARAMETER_UNKNOWN, template, "has no parameter", unknown, f"It has: {declared}.")
    if missing := sorted(template.parameters.keys() - request.parameters.keys()):
        hint = " ".join(f"{name} must be {template.parameters[name].expected}." for name in missing)
        raise _wrong_names(Reason.PARAMETER_MISSING, template, "needs the parameter", missing, hint)
    return {name: template.parameters[name].parse(request.parameters[name]) for name in sorted(template.parameters)}


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


def _seconds(ttl: timedelta) -> str:
    # In whole microseconds: a float would round 0.3 s and write a year as 3.2e+07.
    whole, rest = divmod(abs(ttl) // timedelta(microseconds=1), 1_000_000)
    told = f"{whole}.{rest:06}".rstrip("0") if rest else str(whole)
    return f"-{told}" if ttl < timedelta(0) else told
