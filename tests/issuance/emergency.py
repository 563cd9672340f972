"""A world in which glass can be broken: SRE may on orders-read, twice a day, and every account there is gated."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson

from broker.approval.intent_digest import BREAK_GLASS, REVIEW_BREAK_GLASS, nonce_of
from broker.breakglass.codes import Batch
from broker.breakglass.intent import (
    CREATE_BREAK_GLASS_CODES,
    OVERRIDE_BREAK_GLASS,
    codes_fields,
    override_fields,
    review_fields,
    use_fields,
)
from broker.breakglass.reviews import OverrideKind, Use
from broker.breakglass.rules import BreakGlassRule
from broker.dev.identity_provider import CLIENT_ID
from broker.identity.operator import Operator, Role
from broker.issuance.break_glass import BreakGlassDesk
from broker.issuance.break_glass_codes import CodeDesk, MadeCodes
from broker.issuance.break_glass_order import BreakGlassOrder, Proven
from broker.issuance.break_glass_reviews import OverrideOrder, ReviewDesk
from broker.issuance.caller import OperatorCaller
from broker.issuance.fresh_logins import FreshLogins
from broker.issuance.issue import Grant
from broker.issuance.suspending import SuspensionDesk, SuspensionOrder
from broker.ports.break_glass import OverrideGiven
from broker.ports.leases import Lease
from broker.stores.ledger import LedgerStore
from broker.suspension.suspension import Kind, Suspension
from tests.clock import CountingRng
from tests.issuance.world import NEEDED, TENANT, World, id_tokens, template

RULE = BreakGlassRule(frozenset({"sre"}), timedelta(minutes=30), max_uses=2)
TTL = timedelta(minutes=10)


@dataclass
class Emergency:
    """The world, and the desks of break-glass."""

    world: World
    desk: BreakGlassDesk
    reviews: ReviewDesk
    codes: CodeDesk
    suspensions: SuspensionDesk
    logins: int = 0

    @classmethod
    async def open(cls, directory: Path, store: LedgerStore | None = None, **rule: Any) -> Emergency:
        """``store``: the ledger, where it is not a file in ``directory``."""
        world = await World.gated(directory, store=store)
        made = replace(RULE, **rule)
        accounts = frozenset({"dev", *NEEDED})
        templates = {"orders-read": template(accounts=accounts, mandatory=frozenset({"plan", "ticket"}))}
        world.deploy = replace(world.deploy, templates=templates, break_glass={"orders-read": made})
        kick, rng = world.revoker.kick, CountingRng()
        fresh = FreshLogins(id_tokens(world.provider), world.clock)
        desk = BreakGlassDesk(
            world.store,
            world.issuer,
            {"fake": world.upstream}.get,
            kick,
            world.gate,
            world.clock,
            rng,
            fresh=fresh,
            issue_timeout=timedelta(minutes=1),
        )
        return cls(
            world,
            desk,
            ReviewDesk(world.store, fresh, world.clock, rng),
            CodeDesk(world.store, fresh, world.clock, rng, secrets.token_bytes, cost=2**4),
            SuspensionDesk(world.store, kick, fresh, world.clock, rng),
        )

    def person(self, key: str) -> OperatorCaller:
        deploy = self.world.deploy
        operator = Operator(deploy.people[key], key, "login")
        return OperatorCaller(TENANT, operator, frozenset(Role), deploy, self.world.clock.now())

    def order(self, name: str = "g1", **changes: Any) -> BreakGlassOrder:
        made = BreakGlassOrder(name, "orders-read", "prod", "dev", "orders", TTL, "orders are locked", "INC-1")
        return replace(made, **changes)

    def login(self, key: str, action: str, fields: dict[str, str], **how: Any) -> str:
        """The ID token of a login for exactly this."""
        self.logins += 1  # as a provider does, that two logins of one moment are two
        claims = {"jti": f"login-{self.logins}"}
        return self.world.provider.id_token(key, CLIENT_ID, nonce_of(action, fields), claims=claims, **how)

    async def use(
        self, key: str = "bea", name: str = "g1", proven: Proven | None = None, token: str = "", **changes: Any
    ) -> Grant:
        order = self.order(name, **changes)
        asked = {each.name: getattr(order, each.name) for each in fields(order) if each.name != "request_id"}
        token = token or self.login(key, BREAK_GLASS, use_fields(**asked))
        return await self.desk.use(self.person(key), order, fresh_id_token=token, proven=proven)

    async def used(self, key: str = "bea", name: str = "g1", **changes: Any) -> Lease:
        """Used, confirmed; the lease."""
        grant = await self.use(key, name, **changes)
        assert grant.lease is not None and grant.credential is not None
        return await self.desk.confirm(self.person(key), grant.lease.id, grant.lease.attempt_id)

    async def ended(self, key: str = "bea", name: str = "g1") -> Use:
        """Used, and ended again at once."""
        lease = await self.used(key, name)
        use, _ = await self.desk.end(self.person(key), lease.id, timedelta(seconds=30))
        await self.tend()
        return use

    async def review(self, lease_id: str, key: str = "eli", name: str = "v1", text: str = "was needed") -> Use:
        token = self.login(key, REVIEW_BREAK_GLASS, review_fields(lease_id, text))
        return await self.reviews.review(self.person(key), lease_id, name, text, fresh_id_token=token)

    async def override(
        self, by: str, kind: OverrideKind, subject: str, person: str = "bea", name: str = "o1"
    ) -> OverrideGiven:
        order = OverrideOrder(name, kind, subject, person, "it cannot wait")
        said = override_fields(kind.value, subject, person, order.reason)
        token = self.login(by, OVERRIDE_BREAK_GLASS, said)
        return await self.reviews.override(self.person(by), order, fresh_id_token=token)

    async def request_codes(
        self, by: str, name: str = "b1", person: str = "bea", count: int = 1, reason: str = "safe 3"
    ) -> Batch:
        token = self.login(by, CREATE_BREAK_GLASS_CODES, codes_fields("", person, count, reason))
        return await self.codes.request(self.person(by), name, person, count, reason, fresh_id_token=token)

    async def make_codes(self, by: str, batch_id: str) -> MadeCodes:
        token = self.login(by, CREATE_BREAK_GLASS_CODES, codes_fields(batch_id, "", 0, ""))
        return await self.codes.make(self.person(by), batch_id, fresh_id_token=token)

    async def suspend(self, kind: Kind, value: str = "", name: str = "s1") -> Suspension:
        order = SuspensionOrder(name, kind, value, "it went mad", None)
        return (await self.suspensions.suspend(self.person("eli"), order)).suspension

    async def tend(self) -> None:
        await self.desk.tend(TENANT, self.world.deploy)
        await self.suspensions.tend(TENANT, self.world.deploy)

    async def events(self, beginning: str = "break_glass.") -> list[dict[str, Any]]:
        found = [orjson.loads(body) for body in await self.world.store.audit_since(0, 10_000)]
        return [each for each in found if each["type"].startswith(beginning)]

    async def uses(self, *, unsettled: bool = False) -> Sequence[tuple[Use, Lease]]:
        return await self.world.store.uses(TENANT, unsettled, "", 100)

    async def types(self) -> list[str]:
        return [each["type"].removeprefix("break_glass.") for each in await self.events()]
