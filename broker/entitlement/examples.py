"""Values to try for what agents fill in: of each typed parameter a few that stand for the others.

In this order: values that agents have asked for, values that policies name, and values that follow from the type.
All have passed the parameter itself. ``whole`` says whether these are all that there are; where they are not, what is
found with them is found for them, and told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

from broker.entitlement.sample import sample
from broker.errors import InvalidInput
from broker.identity.pattern import IdPattern, Matching, is_segment
from broker.identity.spiffe_id import SpiffeId
from broker.policy.cedar import PolicySet
from broker.scope.model import ScopeTemplate
from broker.scope.parameters import (
    CidrParameter,
    EnumParameter,
    IntegerParameter,
    Parameter,
    PrefixParameter,
    RegexParameter,
)

# Values of one parameter; an enum is mostly tried in full.
MOST_LISTED, MOST = 16, 4
# Combinations of one template's values, and identities of one pattern.
MOST_COMBINATIONS, MOST_IDENTITIES = 24, 8
_ANY = "example"


@dataclass(frozen=True, slots=True)
class Filled:
    """Everything an agent fills in, once."""

    resource: str
    parameters: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return " ".join([self.resource, *(f"{name}={value}" for name, value in self.parameters)])


@dataclass(frozen=True, slots=True)
class Tries:
    """What to try of one template. ``whole``: nothing that policies could tell apart is left out."""

    values: tuple[Filled, ...]
    whole: bool


def tries(template: ScopeTemplate, policies: PolicySet, seen: Mapping[str, Iterable[str]]) -> Tries:
    """What to try of ``template``; ``seen`` are values asked for, by parameter ("resource" is the resource's).

    What no policy looks at is tried once: any value of it has the same answer.
    """
    looked_at, compared = policies.attributes, policies.compared
    names = compared.get("name", ())
    resources, whole = _values(template.resource, seen.get("resource", ()), names, varied="name" in looked_at)
    fields: list[list[tuple[str, str]]] = []
    for name, parameter in sorted(template.parameters.items()):
        pairs = (text.partition("=") for text in compared.get("parameters", ()))
        told = [value for key, _, value in pairs if key == name]
        values, all_of_it = _values(parameter, seen.get(name, ()), told, varied="parameters" in looked_at)
        whole = whole and all_of_it
        fields.append([(name, value) for value in values])
    every = product(resources, product(*fields))
    taken = tuple(Filled(resource, parameters) for resource, parameters in islice(every, MOST_COMBINATIONS))
    return Tries(taken, whole and next(every, None) is None)


def _values(parameter: Parameter, seen: Iterable[str], named: Iterable[str], *, varied: bool) -> tuple[list[str], bool]:
    """Values, and whether they stand for all."""
    most = MOST_LISTED if isinstance(parameter, EnumParameter) else MOST
    guesses = (*seen, *named, *_typical(parameter))
    passed = dict.fromkeys(value for guess in guesses if (value := _passed(parameter, guess)) is not None)
    values = list(islice(passed, most if varied else 1))
    if not varied:
        return values, bool(values)
    return values, isinstance(parameter, EnumParameter) and len(values) == len(parameter.values)


def _passed(parameter: Parameter, text: str) -> str | None:
    try:
        return parameter.parse(text)
    except InvalidInput:
        return None


def _typical(parameter: Parameter) -> Iterator[str]:
    match parameter:
        case EnumParameter():
            yield from parameter.values
        case IntegerParameter():
            yield from (str(parameter.minimum), str(parameter.maximum))
        case PrefixParameter():
            yield from (f"{parameter.prefix}{_ANY}", parameter.prefix)
        case RegexParameter():
            yield from filter(None, (sample(parameter.pattern),))
        case CidrParameter():
            for network in parameter.within:
                yield f"{network.network_address}/{max(network.prefixlen, parameter.min_prefix_length)}"


def identities(pattern: IdPattern) -> tuple[SpiffeId, ...]:
    """Some SPIFFE IDs that ``pattern`` matches; none where none could be made up."""
    steps: list[list[str]] = []
    for step in pattern.steps:
        if step.listed is not None:
            steps.append(sorted(step.listed))
            continue
        guess = sample(step.restriction.expression) if isinstance(step.restriction, Matching) else _ANY
        steps.append([guess] if guess and is_segment(guess) and step.restriction.accepts(guess) else [])
    every = islice(product(*steps), MOST_IDENTITIES)
    return tuple(SpiffeId(pattern.trust_domain, f"/{'/'.join(path)}") for path in every)
