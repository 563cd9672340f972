"""From validated files to the ideas' own types, checking what refers to what."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from broker.deployfiles.agents import Entries, entries
from broker.deployfiles.kinds import ACCOUNTS, AGAINST, GRANTS, references
from broker.deployfiles.kinds_fields import ParameterSegment
from broker.deployfiles.models import AgentFile, ConnectorsFile, MayEntry, PeopleFile, PersonEntry, TemplateFile
from broker.deployfiles.read import Read
from broker.files import Model, Problem, Problems, validated
from broker.files.document import Path
from broker.identity.agent import May, Person
from broker.identity.automation import Automation
from broker.identity.spiffe_id import SpiffeId
from broker.ports.deploys import ConnectorSpec
from broker.scope.canonical import JsonValue, canonical_json
from broker.scope.model import FromIdentity, Risk, ScopeTemplate
from broker.scope.parameters import EnumParameter, Parameter

_RESOURCE = "resource"
# ("grant", FIELD): what is referred to is the field itself, and no part of a text in it.
_WHOLE_FIELD = 2


class Assembly:
    """Puts one set together. ``problems`` is the caller's list, and grows.

    A people or connectors file that could not be read is None: what refers to it is then not complained about.
    """

    def __init__(
        self,
        people: Read[PeopleFile] | None,
        connectors: Read[ConnectorsFile] | None,
        problems: list[Problem],
        *,
        for_review: bool = False,
    ) -> None:
        self._problems = problems
        self._for_review = for_review
        self._people_known, self._connectors_known = people is not None, connectors is not None
        self.people: dict[str, Person] = self._people(people) if people else {}
        self.automation = dict(self._automation(people)) if people else {}
        self.connectors: dict[str, ConnectorSpec] = _connectors(connectors.content) if connectors else {}

    def agents(self, files: Iterable[Read[AgentFile]]) -> Entries:
        """The entries of the registry whose owner is there and enabled."""
        return entries(files, self._owner, self._problems)

    def templates(self, files: Iterable[Read[TemplateFile]]) -> list[ScopeTemplate]:
        """The templates whose connector is there and takes their grant."""
        templates: list[ScopeTemplate] = []
        places: dict[str, str] = {}
        for file in files:
            entry = file.content
            if taken := places.get(entry.name):
                self._problems.append(file.problem(("name",), f"{entry.name} is defined in {taken} too"))
            places.setdefault(entry.name, file.document.file)
            connector = self.connectors.get(entry.connector)
            if connector is not None:
                templates.extend(self._template(file, connector))
            elif self._connectors_known:
                known = ", ".join(sorted(self.connectors))
                self._problems.append(
                    file.problem(("connector",), f"{entry.connector} is not in connectors.yaml", f"There is: {known}.")
                )
        return templates

    def _people(self, file: Read[PeopleFile]) -> dict[str, Person]:
        seen: dict[tuple[str, str], str] = {}
        for key, entry in file.content.people.items():
            other = seen.setdefault((entry.issuer, entry.subject), key)
            if other != key:
                message = f"is the same person as {other}: one issuer and subject, one entry"
                self._problems.append(file.problem(("people", key), message))
        return {key: _person(entry) for key, entry in file.content.people.items()}

    def _automation(self, file: Read[PeopleFile]) -> Iterator[tuple[SpiffeId, Automation]]:
        seen: dict[str, str] = {}
        for key, entry in file.content.automation.items():
            at, owner = ("automation", key), self.people.get(entry.owner)
            if (other := seen.setdefault(entry.spiffe_id, key)) != key:
                self._problems.append(file.problem((*at, "spiffe_id"), f"is the same workload as {other}"))
            if owner is None or owner.disabled:
                why = "is not in people.yaml" if owner is None else "is disabled in people.yaml"
                self._problems.append(file.problem((*at, "owner"), f"{entry.owner} {why}", "Name who answers for it."))
                continue
            spiffe_id = SpiffeId.parse(entry.spiffe_id)
            yield spiffe_id, Automation(spiffe_id, owner, frozenset(entry.roles), entry.description, entry.until)

    def _owner(self, file: Read[AgentFile]) -> Person | None:
        key = file.content.owner
        person = self.people.get(key)
        if self._for_review and self._people_known:
            # Taken in all the same: that nobody answers for it is what a review is about.
            return person or Person("", key, f"{key} (not in people.yaml)", disabled=True)
        if person is None and self._people_known:
            self._problems.append(file.problem(("owner",), f"{key} is not in people.yaml", "Name a person there."))
        elif person is not None and person.disabled:
            hint = "An agent needs somebody who answers for it: name another owner, or remove the agent."
            self._problems.append(file.problem(("owner",), f"{key} is disabled in people.yaml", hint))
            return None
        return person

    def _template(self, file: Read[TemplateFile], connector: ConnectorSpec) -> list[ScopeTemplate]:
        entry = file.content
        try:
            grant = validated(GRANTS[connector.kind], file.document, at=("grant",))
        except Problems as found:
            self._problems.extend(found.problems)
            return []
        parameters = {name: spec.build(name) for name, spec in entry.parameters.items()}
        resource = entry.resource.build(_RESOURCE)
        problems = [
            *_account_problems(file, connector),
            *_settings_problems(file, grant, connector),
            *_resource_problems(file),
            *_reference_problems(file, grant, parameters, resource),
        ]
        self._problems.extend(problems)
        return [] if problems else [_scope_template(entry, grant, parameters, resource)]


def _account_problems(file: Read[TemplateFile], connector: ConnectorSpec) -> Iterable[Problem]:
    form, what, hint = ACCOUNTS.get(connector.kind, (None, "", ""))
    for index, account in enumerate(file.content.accounts):
        if form is not None and not form.match(account):
            yield file.problem(("accounts", index), f"{account} is no {what}", hint)


def _settings_problems(file: Read[TemplateFile], grant: Model, connector: ConnectorSpec) -> Iterable[Problem]:
    against = AGAINST.get(connector.kind)
    for field, message, hint in against(grant, connector.settings, file.content.accounts) if against else ():
        yield file.problem(("grant", field), message, hint)


def _resource_problems(file: Read[TemplateFile]) -> Iterable[Problem]:
    if file.content.resource.from_identity:
        hint = "Requests name the resource. Declare a parameter that is from_identity, and use it in the grant."
        yield file.problem((_RESOURCE, "from_identity"), "is not for the resource", hint)


def _reference_problems(
    file: Read[TemplateFile], grant: Model, parameters: Mapping[str, Parameter], resource: Parameter
) -> Iterable[Problem]:
    for path, segment in references(grant, ("grant",)):
        name = segment.parameter if isinstance(segment, ParameterSegment) else _RESOURCE
        target = parameters.get(name) if isinstance(segment, ParameterSegment) else resource
        if target is None:
            declared = ", ".join(sorted(parameters)) or "none"
            yield file.problem(path, f"{name} is not a parameter of this template", f"Declared: {declared}.")
        elif not target.inert:
            hint = "Take the value with a wildcard, quote or $ out of its enum."
            yield file.problem(path, f"{name} may hold more than plain text", hint)
        elif len(path) == _WHOLE_FIELD:
            yield from _choice_problems(file, grant, path, target)
        elif isinstance(segment, ParameterSegment) and segment.chooses and not isinstance(target, EnumParameter):
            hint = "Make it an enum of what it may choose."
            yield file.problem(path, f"{target.name} is of type {target.kind}, and chooses what is granted", hint)


def _choice_problems(file: Read[TemplateFile], grant: Model, path: Path, target: Parameter) -> Iterable[Problem]:
    """A parameter that is a whole field of the grant chooses between things upstream: the operator lists which.

    A pattern would leave it to whoever names workloads, or agents, which of them are reached.
    """
    if not isinstance(target, EnumParameter):
        hint = "Make it an enum of what it may choose."
        yield file.problem(path, f"{target.name} is of type {target.kind}, and chooses the {path[-1]}", hint)
        return
    written = grant.model_dump(mode="json")
    for value in target.values:
        try:
            type(grant).model_validate({**written, str(path[-1]): value})
        except ValidationError:
            told = f"{ascii(value)[:80]}, a value of {target.name}, is no {path[-1]}"
            yield file.problem(path, told, f"Take it out of the values of {target.name}.")


def _scope_template(
    entry: TemplateFile, grant: Model, parameters: Mapping[str, Parameter], resource: Parameter
) -> ScopeTemplate:
    # The grant as the kind normalised it, so that shorthand and long form have one digest.
    # Without what it says about leases that are out already: that is no part of what people agree to, or plans fix.
    said = entry.model_dump(mode="json", exclude={"on_policy_change"})
    if entry.max_delegation_depth is None:  # a template that says nothing of it keeps the digest it had
        del said["max_delegation_depth"]
    if entry.wrapping == "refused":  # likewise
        del said["wrapping"]
    if entry.break_glass is None:
        del said["break_glass"]
    written = {**said, "grant": grant.model_dump(mode="json")}
    return ScopeTemplate(
        name=entry.name,
        description=entry.description,
        connector=entry.connector,
        accounts=frozenset(entry.accounts),
        environments=frozenset(entry.environments),
        resource=resource,
        access=entry.access,
        actions=tuple(entry.actions),
        max_ttl=entry.max_ttl,
        mandatory=frozenset(entry.requires),
        parameters={name: parameters[name] for name, spec in entry.parameters.items() if not spec.from_identity},
        grant=written["grant"],
        digest=_digest(written),
        from_identity={
            name: FromIdentity(parameters[name], spec.from_identity)
            for name, spec in entry.parameters.items()
            if spec.from_identity
        },
        risk=Risk(entry.sensitivity, entry.blast_radius, entry.reversibility, entry.change_type, entry.promoted),
        on_policy_change=entry.on_policy_change,
        max_delegation_depth=entry.max_delegation_depth,
        wrapping=entry.wrapping == "allowed",
    )


def _person(entry: PersonEntry) -> Person:
    return Person(
        issuer=entry.issuer,
        subject=entry.subject,
        display_name=entry.display_name,
        email=entry.email,
        groups=frozenset(entry.groups),
        disabled=entry.disabled,
        until=entry.until,
        may=None if entry.may is None else _may(entry.may),
    )


def _may(entry: MayEntry) -> May:
    return May(
        access=frozenset(each.value for each in entry.access),
        environments=frozenset(entry.environments),
        templates=frozenset(entry.templates),
    )


def _connectors(file: ConnectorsFile) -> dict[str, ConnectorSpec]:
    specs: dict[str, ConnectorSpec] = {}
    for name, entry in file.connectors.items():
        settings = entry.settings.model_dump(mode="json")
        digest = _digest({"name": name, "kind": entry.kind, "settings": settings})
        specs[name] = ConnectorSpec(name, entry.kind, settings, digest)
    return specs


def _digest(value: JsonValue) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
