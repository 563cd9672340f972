"""The people's door, where an operator switched it on.

Belongs here: from the configuration to the credentials in force, and to the server behind them. What people can
do there is ``broker/api/admin_*.py``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping

import structlog

from broker.api.people import Credentials, PeopleEntrance
from broker.config import Config
from broker.errors import BrokerError, InvalidInput
from broker.files import Problem, Problems
from broker.identity.agent import Person
from broker.identity.operator import RoleGrants
from broker.keys import random_text
from broker.ports import Clock, DeploySource
from broker.secret import Secret

log = structlog.get_logger("broker.identity")


class PeopleAdmitted:
    """Whose credentials are accepted. Construction raises :class:`Problems` with all that is wrong with them."""

    def __init__(self, config: Config, resolve: Callable[[str], Secret]) -> None:
        self._config = config
        self._resolve = resolve
        self._key = secrets.token_bytes(32)
        self._in_force = self._load()

    def entrance(self, deploy: DeploySource, clock: Clock) -> PeopleEntrance:
        """The way in for the door."""
        grants = RoleGrants({role: frozenset(groups) for role, groups in self._config.roles.items()})
        return PeopleEntrance(lambda: self._in_force, grants, deploy, clock, self._config.tenant)

    def check_people(self, people: Mapping[str, Person]) -> None:
        """Raises :class:`Problems` for credentials of nobody."""
        unknown = [key for key in self._config.operators if key not in people]
        if unknown:
            hint = "Its keys are those of people.yaml in the deploy set."
            raise Problems([self._problem(key, "is nobody in people.yaml", hint) for key in unknown])

    def reload(self) -> None:
        """Read the files again; what is unfit is told, and the last good stay. Never raises for them."""
        try:
            self._in_force = self._load()
        except BrokerError as refused:
            log.error("operators' credentials were not taken in; the last good stay", problems=refused.message)

    def _load(self) -> Credentials:
        found: dict[str, Secret] = {}
        problems: list[Problem] = []
        for key, reference in self._config.operators.items():
            try:
                found[key] = random_text(reference, self._resolve)
            except InvalidInput as unfit:
                problems.append(self._problem(key, unfit.message.rstrip("."), unfit.hint))
        problems.extend(self._shared(found))
        if problems:
            raise Problems(problems)
        return Credentials(found, self._key)

    def _shared(self, found: Mapping[str, Secret]) -> Iterator[Problem]:
        keys = list(found)
        for index, key in enumerate(keys):
            for other in keys[:index]:
                if found[key] == found[other]:
                    hint = "Each person has one of their own: broker operator new-credential FILE"
                    yield self._problem(key, f"is the credential of {other} too", hint)

    def _problem(self, key: str, message: str, hint: str) -> Problem:
        return self._config.problem(("operators", key), message, hint)
