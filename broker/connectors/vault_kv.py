"""Secrets that lie in Vault's or OpenBao's KV store, version 2 (kind ``vault-kv``): STATIC, so only rotation ends one.

Nothing is made for the agent: it is told what others are told, too, and nothing ends that but putting another secret in
its place. So a template has to say that this is accepted, and policy has to permit it by name.

The version is the template's: a secret that was rotated is not given out by a template that nobody has looked at since.
A lease here ends when the store shows that the version it gave out is no longer the current one, or is deleted. Until
then it is not over, whatever its deadline, and after the deadline that is told as a failure: rotate it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.connectors.unknown_use import cannot_tell
from broker.connectors.vault_answers import integer_in, object_in
from broker.connectors.vault_calls import BrokerToken
from broker.connectors.vault_examine import NOBODYS, Rights
from broker.connectors.vault_http import Known, VaultFailure
from broker.connectors.vault_unleased import VaultUnleased
from broker.connectors.vault_wrapping import end_wrapping, is_wrapped
from broker.errors import InvalidInput, Reason
from broker.lease.credential import Binding, Contract, ContractClass, Credential, StaticSecret
from broker.ports.clock import Clock
from broker.ports.connectors import Handle, Issued, NotYet, Refused, RevokeContext, Revoked, RevokeOutcome, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret

_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,15}\Z", re.ASCII)
_LONGEST_PATH = 512
# How often an unrotated secret is looked at again; nothing else is waited for.
_LOOK_AGAIN = timedelta(minutes=15)
_NEVER_DELIVERED = Revoked({"proof": "it was read and never delivered"})

CONTRACT = Contract(
    cls=ContractClass.STATIC,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    # It works for as long as nobody rotates it: longer than any policy allows.
    on_expiry=timedelta(days=36500),
    on_revoke=None,
    broker_dead="Nothing ends it. Only rotation does.",
    upstream_dead="Nothing ends it. Only rotation does.",
    wraps=True,
    gives=StaticSecret,
)


@dataclass(frozen=True, slots=True)
class VaultKvSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    mount: str = "kv"
    ca_file: str | None = None
    namespace: str = ""
    timeout: float = 5.0
    threads: int = 4


class VaultKv(VaultUnleased):
    """The connector."""

    what = "secret"
    looks_again = True

    def __init__(self, name: str, settings: VaultKvSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)

    @property
    def contract(self) -> Contract:
        """STATIC: only rotation ends it."""
        return CONTRACT

    def names(self, scope: Scope) -> Mapping[str, JsonValue]:
        """Path and version. Raises InvalidInput, also where the template does not accept that nothing ends it."""
        grant = scope.grant
        if grant.get("static_accepted") is not True:
            raise _bad(scope, "does not accept a secret that only rotation ends", "Say grant.static_accepted: true.")
        path, version = grant.get("path"), grant.get("version")
        if not isinstance(path, str) or len(path) > _LONGEST_PATH or not _PATH.match(path):
            raise _bad(scope, "names no path", "grant.path: names joined by '/'.")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise _bad(scope, "names no version", "grant.version: a whole number from 1; there is no newest.")
        _fields(scope)
        return {"path": path, "version": version}

    def make(self, handle: Handle, scope: Scope, begun: datetime, ttl: int) -> Issued:
        """Read the version that the template names, and of it the fields that it names."""
        path, version = str(handle["path"]), int(str(handle["version"]))
        answer = self.calls.read(f"{handle['mount']}/data/{path}", version=str(version))
        data = object_in(answer, "data")
        if integer_in(object_in(data, "metadata"), "version") != version:
            raise self.mismatch("the secret is of another version than was asked for")
        values = object_in(data, "data")
        fields = {name: values.get(name) for name in _fields(scope)}
        absent = [name for name, value in fields.items() if not isinstance(value, str) or not value]
        if absent:
            raise VaultFailure(Known.REJECTED, f"the secret has no text in {', '.join(absent)}", status=404)
        return Issued(
            StaticSecret(path, version, {name: Secret(str(value)) for name, value in fields.items()}),
            expires_at=begun + timedelta(seconds=ttl),
            observed={"path": path, "version": version, "fields": sorted(fields)},
        )

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Revoked where it was never delivered, or has been rotated."""
        if not context.outcome_known and not is_wrapped(handle):
            return _NEVER_DELIVERED
        if self._closing.closed:
            return NotYet(f"{self.name} is being replaced.", failed=False)
        try:
            with self._closing.call():
                return await self._threads.run(lambda: self._looked_at(handle, context))
        except VaultFailure as failure:
            if failure.status in (401, 403):
                return Refused(f"{self.name} refuses the broker's own token: {failure.what}.")
            return NotYet(f"{self.name} could not be asked: {failure.what}.", failure.retry_after)

    def _looked_at(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Blocks. Raises VaultFailure."""
        if elsewhere := self.cluster.elsewhere(self.name, handle):
            return elsewhere
        end_wrapping(self.calls, handle)
        rotated = self._rotated(handle) if context.outcome_known else ""
        if context.outcome_known and not rotated:
            why = f"only rotation ends a secret of {self.name}: version {handle['version']} is still the current one."
            return NotYet(why, _LOOK_AGAIN, failed=context.now >= context.expires_at)
        if unproven := self.cluster.unproven(self.name, handle):
            return unproven
        return Revoked({"proof": rotated}) if context.outcome_known else _NEVER_DELIVERED

    def rights(self) -> Rights:
        """To read what templates name, which this does not know, and to write nothing."""
        mount = self._upstream.mount
        writes = {f"{mount}/{part}/{NOBODYS}": "change secrets" for part in ("data", "metadata", "delete", "destroy")}
        return Rights(needed={}, forbidden={**writes, f"{mount}/config": "change the store"}, closed={})

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Raises UpstreamFailed: what the secret opens, only operators know."""
        raise cannot_tell(self.name, "what the secret opens is not known here")

    def _rotated(self, handle: Handle) -> str:
        """What shows that the version is not in use any more; empty while it is."""
        told = object_in(self.calls.read(f"{handle['mount']}/metadata/{handle['path']}"), "data")
        version = int(str(handle["version"]))
        current = integer_in(told, "current_version")
        if current > version:
            return f"version {current} is the current one"
        of_it = object_in(told, "versions").get(str(version))
        if isinstance(of_it, dict) and (of_it.get("destroyed") is True or of_it.get("deletion_time")):
            return f"version {version} is deleted"
        return ""


def _fields(scope: Scope) -> list[str]:
    """Which fields the agent is told: those that the template names, never all."""
    told = scope.grant.get("fields")
    if not isinstance(told, list | tuple) or not told or not all(isinstance(each, str) and each for each in told):
        raise _bad(scope, "names no fields", "grant.fields: the names of the fields that agents are told.")
    return [str(each) for each in told]


def _bad(scope: Scope, why: str, hint: str) -> InvalidInput:
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} {why}.",
        hint=f"Operators: {hint}",
        metadata={"template": scope.template},
    )
