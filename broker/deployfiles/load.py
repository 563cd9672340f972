"""One deploy set from its files, or everything that is wrong with it.

Each file is checked alone first; what refers to something else (an agent to its owner, a template to
its connector) is checked against whatever could be read, so that one broken file does not hide or
cause complaints about others.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TypeVar

from broker.deployfiles import aws_policies, listing
from broker.deployfiles.approvals import ApprovalsFile, approval_rules, unreachable
from broker.deployfiles.assemble import Assembly
from broker.deployfiles.break_glass import break_glass_rules, unusable
from broker.deployfiles.canaries import canaries_of, unfit_canaries
from broker.deployfiles.denied import DeniedFile, deny_list
from broker.deployfiles.escalation import EscalationFile, rules_of
from broker.deployfiles.federation import TrustDomainsFile, federation_problems
from broker.deployfiles.listing import Listing
from broker.deployfiles.mentions import unknown_mentions, unknown_segments
from broker.deployfiles.models import AgentFile, ConnectorsFile, PeopleFile, TemplateFile
from broker.deployfiles.policy_tests import PolicyTest, PolicyTestsFile, incomplete, tests_of, unknown_names
from broker.deployfiles.quotas import QuotasFile, quotas_of, unknown_subjects
from broker.deployfiles.read import Read
from broker.deployfiles.signed import verified
from broker.deployfiles.signers import Signers
from broker.files import Model, Problem, Problems, parse_yaml, validated
from broker.identity.agent import Registry
from broker.identity.denied import DenyList
from broker.identity.own import canary_agent
from broker.policy.cedar import PolicyProblems, PolicySet
from broker.policy.shadow import ShadowPolicies
from broker.ports.deploys import DeploySet, Signed

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Model)

# Where nobody says which trust domain the set is for: it is then only checked.
_UNSAID = "trust-domain.invalid"


def load(directory: Path, trust_domain: str = "", signers: Signers | None = None) -> DeploySet:
    """The set in ``directory``. Raises :class:`~broker.files.Problems` with every problem of every file.

    ``trust_domain`` is the broker's own, where that is known; ``signers`` are whose signatures it needs, if any.
    """
    return build(listing.read_set(directory), trust_domain, signers)


def build(
    files: Listing,
    trust_domain: str = "",
    signers: Signers | None = None,
    *,
    to_serve: bool = False,
    for_review: bool = False,
) -> DeploySet:
    """The set in ``files``, already read. Raises :class:`~broker.files.Problems`.

    Where signatures are needed they are judged first, over the bytes that the set is then made of: no parser sees
    what nobody has signed.

    ``to_serve``: by a broker, which does not read the tests beside the policies, nor count whether each approval can
    still be reached. No decision does, and an agent must be gone when its file is, although a test still names it; so
    must a person who is disabled, although an approval cannot be had without them any more.

    ``for_review``: agents whose owner is disabled, or is no person of the set, are in the registry all the same, with
    an owner who is disabled. Such a set is only looked at, never served.
    """
    signed = _signed(files, signers)
    problems = list(files.problems)
    connectors = _one(files, listing.CONNECTORS, ConnectorsFile, problems)
    people = _one(files, listing.PEOPLE, PeopleFile, problems)
    assembly = Assembly(people, connectors, problems, for_review=for_review)
    registered = assembly.agents(_each(files, listing.AGENTS, AgentFile, problems))
    rules = _one(files, listing.TRUST_DOMAINS, TrustDomainsFile, problems)
    if rules is not None or listing.TRUST_DOMAINS not in files.texts:
        problems.extend(federation_problems(rules, registered.sound, trust_domain))
    denied = _one(files, listing.DENIED, DeniedFile, problems)
    denials = deny_list(denied, assembly.people, problems, known=people is not None) if denied else DenyList()
    approvals = _one(files, listing.APPROVALS, ApprovalsFile, problems)
    rules_of_approval = approval_rules(approvals) if approvals else {}
    if approvals is not None and people is not None and not to_serve:
        problems.extend(unreachable(approvals, assembly.people.values()))
    template_files = _each(files, listing.TEMPLATES, TemplateFile, problems)
    templates = {template.name: template for template in assembly.templates(template_files)}
    if people is not None and not to_serve:
        problems.extend(unusable(template_files, assembly.people.values()))
    quotas = _one(files, listing.QUOTAS, QuotasFile, problems)
    escalation = _one(files, listing.ESCALATION, EscalationFile, problems)
    policies = _policies(files, problems)
    shadow = _shadow(files, problems) if policies is not None else None
    tests = [] if to_serve else _tests(files, problems)
    # What refers to agents is only looked at where every agent is known.
    if people is None or not _whole(files, problems, listing.AGENTS):
        raise Problems(problems)
    canaries = canaries_of(connectors) if connectors is not None else {}
    # Where that file could not be read, what names the broker's own principal is not complained about.
    own = canary_agent(trust_domain or _UNSAID) if canaries or connectors is None else None
    registry = Registry(registered.agents, registered.patterns, own)
    if connectors is not None and _whole(files, problems, listing.TEMPLATES):
        problems.extend(unfit_canaries(connectors, canaries, templates))
    # None: there is such a file, and it could not be read.
    known = None if approvals is None and listing.APPROVALS in files.texts else rules_of_approval
    problems.extend(unknown_segments(template_files, registry))
    problems.extend(each for file in tests for each in unknown_names(file, registry, policies, known, assembly.people))
    if policies is not None and connectors is not None and _whole(files, problems, listing.TEMPLATES):
        named = (*policies.mentions, *(shadow.mentions if shadow else ()))
        problems.extend(
            Problem(files.name(each.file), each.line, each.policy, message, hint)
            for each, message, hint in unknown_mentions(named, registry, templates, assembly.people, known)
        )
    if quotas is not None and connectors is not None and _whole(files, problems, listing.TEMPLATES):
        problems.extend(unknown_subjects(quotas, registry, assembly.people, templates, connectors=assembly.connectors))
    if problems or policies is None:
        raise Problems(problems)
    return DeploySet(
        digest=files.digest(),
        registry=registry,
        people=assembly.people,
        automation=assembly.automation,
        templates=templates,
        policies=policies,
        connectors=assembly.connectors,
        denied=denials,
        approvals=rules_of_approval,
        signed=signed,
        shadow=shadow,
        quotas=quotas_of(quotas, assembly.people) if quotas else (),
        escalation=rules_of(escalation) if escalation else (),
        break_glass=break_glass_rules(template_files),
        canaries=canaries,
    )


def policy_tests(files: Listing) -> list[PolicyTest]:
    """The tests that lie beside the policies. Raises :class:`~broker.files.Problems`; :func:`build` finds more."""
    problems: list[Problem] = []
    tests = _tests(files, problems)
    if problems:
        raise Problems(problems)
    return tests_of(tests)


def warnings(files: Listing) -> list[Problem]:
    """What keeps no set from being taken, but is probably not meant. For sets that :func:`build` takes."""
    read: list[Problem] = []
    connectors = _one(files, listing.CONNECTORS, ConnectorsFile, read)
    templates = _each(files, listing.TEMPLATES, TemplateFile, read)
    return [] if connectors is None else aws_policies.lint(templates, Assembly(None, connectors, read).connectors)


def templates_in(files: Listing) -> dict[str, Read[TemplateFile]]:
    """The templates of a set that could be built, by name, with where each part stands."""
    return {file.content.name: file for file in _each(files, listing.TEMPLATES, TemplateFile, [])}


def policy_schema() -> str:
    """The Cedar schema that every policy is validated against."""
    return resources.files("broker.policy").joinpath("broker.cedarschema").read_text("utf-8")


def _signed(files: Listing, signers: Signers | None) -> Signed | None:
    if signers is None:
        return None
    if any(problem.file.startswith(files.name(listing.SIGNATURES)) for problem in files.problems):
        raise Problems(files.problems)
    try:
        return verified(files, signers)
    except Problems as found:
        # A file that could not be read is why the digest is another one.
        raise Problems([*files.problems, *found.problems]) from None


def _one(files: Listing, name: str, model: type[_M], problems: list[Problem]) -> Read[_M] | None:
    if name not in files.texts:
        return None
    return _collect(lambda: _read(files, name, model), problems)


def _each(files: Listing, folder: str, model: type[_M], problems: list[Problem]) -> list[Read[_M]]:
    found = (_one(files, name, model, problems) for name in files.folder(folder))
    return [read for read in found if read is not None]


def _read(files: Listing, name: str, model: type[_M]) -> Read[_M]:
    document = parse_yaml(files.name(name), files.texts[name])
    return Read(document, validated(model, document))


def _whole(files: Listing, problems: list[Problem], folder: str) -> bool:
    """Whether nothing is wrong in ``folder``, nor with it."""
    return not any(problem.file.startswith(files.name(folder)) for problem in problems)


def _policies(files: Listing, problems: list[Problem]) -> PolicySet | None:
    return _parsed(files, problems, lambda: PolicySet.parse(_texts(files, listing.POLICIES), policy_schema()))


def _shadow(files: Listing, problems: list[Problem]) -> ShadowPolicies | None:
    shadow, enforced = _texts(files, listing.SHADOW), _texts(files, listing.POLICIES)
    if not shadow:
        return None
    return _parsed(files, problems, lambda: ShadowPolicies.parse(shadow, enforced, policy_schema()))


def _texts(files: Listing, folder: str) -> dict[str, str]:
    # By the names inside the set: its digest must not tell where the set lies.
    return {name: files.texts[name] for name in files.folder(folder)}


def _parsed(files: Listing, problems: list[Problem], parse: Callable[[], _T]) -> _T | None:
    try:
        return parse()
    except PolicyProblems as found:
        problems.extend(
            Problem(files.name(each.file), each.line, each.policy, each.message, each.hint) for each in found.problems
        )
        return None


def _tests(files: Listing, problems: list[Problem]) -> list[Read[PolicyTestsFile]]:
    read = (_one(files, name, PolicyTestsFile, problems) for name in files.policy_tests())
    tests = [each for each in read if each is not None]
    problems.extend(problem for file in tests for problem in incomplete(file))
    return tests


def _collect(read: Callable[[], _T], problems: list[Problem]) -> _T | None:
    try:
        return read()
    except Problems as found:
        problems.extend(found.problems)
        return None
