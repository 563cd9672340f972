"""Everything OpenBao, or what stands in front of it, can answer instead of what was hoped for."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from urllib3 import HTTPHeaderDict

from broker.clock import SystemClock
from broker.connectors.vault_database import VaultDatabase
from broker.connectors.vault_http import retry_after_of
from broker.errors import BrokerError, InvalidInput, NotReady, Reason, UpstreamFailed, WrongState
from broker.ports.connectors import Issued, NotYet, Refused, Revoked, RevokeOutcome
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import vault_connector, vault_settings
from tests.connectors.mishap_proxy import MishapProxy, Reply, Rule, lost, mishap_proxy
from tests.connectors.support import HOLDER, NOW, Ledger, assert_tells_no_secret, make_scope, new_attempt

SCOPE = make_scope({"role": "orders-readonly"})
CLOCK = SystemClock()
CREATE, CREDS = "POST /v1/auth/token/create/", "GET /v1/database/creds/"
RENEW, REVOKE = "PUT /v1/sys/leases/renew", "PUT /v1/sys/leases/revoke"
LOOKUP, LIST, ACCESSOR = (
    "PUT /v1/sys/leases/lookup",
    "LIST /v1/sys/leases/lookup/",
    "POST /v1/auth/token/revoke-accessor",
)
CANARY = "canary-5up3r-s3cr3t"


def errors(status: int, *texts: str, **headers: str) -> Reply:
    """An error in the server's own form."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps({"errors": texts}).encode(), {"Content-Type": "application/json", **named})


def page(status: int) -> Reply:
    """An error of something in front of the server."""
    return Reply(status, b"<html>nginx</html>", {"Content-Type": "text/html"})


def without(*path: str) -> Callable[[Reply], Reply]:
    """The server's answer, with one part missing."""

    def change(reply: Reply) -> Reply:
        body = json.loads(reply.body)
        part = body
        for name in path[:-1]:
            part = part[name]
        del part[path[-1]]
        return Reply(reply.status, json.dumps(body).encode(), reply.headers)

    return change


def with_(value: object, *path: str) -> Callable[[Reply], Reply]:
    """The server's answer, with one part replaced."""

    def change(reply: Reply) -> Reply:
        body = json.loads(reply.body)
        part = body
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        return Reply(reply.status, json.dumps(body).encode(), reply.headers)

    return change


def cut_short(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body[: len(reply.body) // 2], reply.headers)


@dataclass
class Behind:
    """A connector whose exchanges pass a proxy at ``address``."""

    proxy: MishapProxy
    address: str
    connector: VaultDatabase
    ledger: Ledger

    async def issue(self) -> Issued:
        expires_at = CLOCK.now() + timedelta(minutes=5)
        self.ledger.handle = self.connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
        return await self.ledger.issued(
            self.connector.issue(self.ledger.handle, SCOPE, expires_at, self.ledger.checkpoint)
        )

    async def revoke(self) -> RevokeOutcome:
        return await self.connector.revoke(self.ledger.handle, self.ledger.context(CLOCK.now()))


@pytest.fixture
def running_proxy(openbao_server: ConfiguredOpenBao) -> Iterator[tuple[MishapProxy, str]]:
    with mishap_proxy(openbao_server.facts.address) as running:
        yield running


@pytest.fixture
async def behind(openbao_server: ConfiguredOpenBao, running_proxy: tuple[MishapProxy, str]) -> AsyncIterator[Behind]:
    proxy, address = running_proxy
    connector, ledger = vault_connector(openbao_server, address), Ledger()
    yield Behind(proxy, address, connector, ledger)
    proxy.rules.clear()
    if "lease" in ledger.handle:
        assert isinstance(await connector.revoke(ledger.handle, ledger.context(CLOCK.now())), Revoked)
    elif "accessor" in ledger.handle:
        # An orphan would be a suspect in other tests' sweeps.
        openbao_server.root_client().auth.token.revoke_accessor(ledger.handle["accessor"])
    await connector.close()


MISMATCH, UNAVAILABLE = Reason.UPSTREAM_GRANT_MISMATCH, Reason.UPSTREAM_UNAVAILABLE
REFUSED, ROOT_REFUSED = Reason.UPSTREAM_REFUSED, Reason.UPSTREAM_ROOT_REFUSED
# What fails, the reason told, whether it proves that nothing was made, and how many checkpoints were made before.
ISSUE = {
    "our token refused": (Rule(CREATE, errors(403, "permission denied")), ROOT_REFUSED, True, 0),
    "token role refuses": (Rule(CREATE, errors(400, f"policy {CANARY}")), REFUSED, True, 0),
    "busy": (Rule(CREATE, errors(429, "rate limit", Retry_After="7")), UNAVAILABLE, True, 0),
    "sealed": (Rule(CREATE, errors(503, "Vault is sealed")), UNAVAILABLE, False, 0),
    "server error": (Rule(CREATE, errors(500, CANARY)), UNAVAILABLE, False, 0),
    "a proxy's 404": (Rule(CREATE, page(404)), UNAVAILABLE, False, 0),
    "a proxy's 502": (Rule(CREATE, page(502)), UNAVAILABLE, False, 0),
    "redirected": (
        Rule(CREATE, Reply(307, b"", {"Location": "http://127.0.0.1:1/"})),
        UNAVAILABLE,
        False,
        0,
    ),
    "errors of odd types": (Rule(CREATE, Reply(400, b'{"errors":[1]}')), UNAVAILABLE, False, 0),
    "an error that is a list": (Rule(CREATE, Reply(400, b"[]")), UNAVAILABLE, False, 0),
    "200 that is no JSON": (Rule(CREATE, page(200)), UNAVAILABLE, False, 0),
    "200 that is a list": (Rule(CREATE, Reply(200, b"[]")), UNAVAILABLE, False, 0),
    "200 nested without end": (Rule(CREATE, Reply(200, b"[" * 100_000)), UNAVAILABLE, False, 0),
    "204": (Rule(CREATE, Reply(204)), UNAVAILABLE, False, 0),
    "token reply lost": (Rule(CREATE, change=lost), UNAVAILABLE, False, 0),
    "token reply cut": (Rule(CREATE, change=cut_short), UNAVAILABLE, False, 0),
    "no accessor": (Rule(CREATE, change=without("auth", "accessor")), UNAVAILABLE, False, 0),
    "empty accessor": (Rule(CREATE, change=with_("", "auth", "accessor")), UNAVAILABLE, False, 0),
    "no auth": (Rule(CREATE, change=without("auth")), UNAVAILABLE, False, 0),
    "ttl is a text": (Rule(CREATE, change=with_("300", "auth", "lease_duration")), UNAVAILABLE, False, 0),
    "token lives longer": (
        Rule(CREATE, change=with_(3600, "auth", "lease_duration")),
        MISMATCH,
        False,
        1,
    ),
    "token without end": (Rule(CREATE, change=with_(0, "auth", "lease_duration")), MISMATCH, False, 1),
    "token of more policies": (
        Rule(CREATE, change=with_(["jit-attempt-orders-readonly", "default"], "auth", "policies")),
        MISMATCH,
        False,
        1,
    ),
    "token can be renewed": (
        Rule(CREATE, change=with_(True, "auth", "renewable")),
        MISMATCH,
        False,
        1,
    ),
    "token is no orphan": (Rule(CREATE, change=with_(False, "auth", "orphan")), MISMATCH, False, 1),
    "batch token": (Rule(CREATE, change=with_("batch", "auth", "token_type")), MISMATCH, False, 1),
    "login refused": (Rule(CREDS, errors(403, "permission denied")), REFUSED, False, 1),
    "no such role": (Rule(CREDS, errors(400, "unknown role: orders")), REFUSED, False, 1),
    "database down": (Rule(CREDS, errors(500, f"connection refused {CANARY}")), UNAVAILABLE, False, 1),
    "login reply lost": (Rule(CREDS, change=lost), UNAVAILABLE, False, 1),
    "no password": (Rule(CREDS, change=without("data", "password")), UNAVAILABLE, False, 1),
    "null password": (Rule(CREDS, change=with_(None, "data", "password")), UNAVAILABLE, False, 1),
    "no lease id": (Rule(CREDS, change=with_("", "lease_id")), UNAVAILABLE, False, 1),
    "foreign login": (Rule(CREDS, change=with_("v-token-x", "data", "username")), MISMATCH, False, 2),
    "renewal refused": (Rule(RENEW, errors(403, "permission denied")), REFUSED, False, 2),
    "renewal lost": (Rule(RENEW, change=lost), UNAVAILABLE, False, 2),
    "renewed for longer": (Rule(RENEW, change=with_(301, "lease_duration")), MISMATCH, False, 2),
    "renewed without end": (Rule(RENEW, change=with_(0, "lease_duration")), MISMATCH, False, 2),
    "renewed for true": (Rule(RENEW, change=with_(True, "lease_duration")), UNAVAILABLE, False, 2),
}


@pytest.mark.parametrize("case", ISSUE)
async def test_an_issue_that_fails_says_what_is_known_and_no_secret(
    behind: Behind, openbao_server: ConfiguredOpenBao, case: str
) -> None:
    rule, reason, known, checkpoints = ISSUE[case]
    if "nested" in case:
        # What earlier tests left is finalised here, and not by a collection at the bottom of a deep recursion.
        gc.collect()
    given: list[str] = [CANARY, openbao_server.database.broker_token().reveal()]

    def remember(reply: Reply) -> Reply:
        body = json.loads(reply.body)
        given.extend(str(value) for part in ("auth", "data") for value in _secrets_in(body.get(part)))
        return reply

    if rule.route != CREATE:
        behind.proxy.rules.append(Rule(CREATE, change=remember))
    behind.proxy.rules.append(rule)
    with pytest.raises(UpstreamFailed) as caught:
        await behind.issue()
    assert caught.value.reason is reason
    assert caught.value.outcome_known is known
    assert len(behind.ledger.handles) == checkpoints
    assert caught.value.retry_after == (7.0 if case == "busy" else None)
    assert_tells_no_secret(caught.value, *given)


def _secrets_in(part: object) -> list[object]:
    return [part[name] for name in ("client_token", "password") if name in part] if isinstance(part, dict) else []


@pytest.mark.parametrize(("refused", "taken_back"), [(1, [ACCESSOR]), (2, [REVOKE, ACCESSOR])])
async def test_what_could_not_be_noted_is_taken_back_at_once(
    behind: Behind, refused: int, taken_back: list[str]
) -> None:
    """Nobody else knows the accessor then, or the lease id: without this they would live on until their time."""
    behind.ledger.refuse_from = refused
    behind.ledger.error = WrongState(Reason.LEASE_ENDED, "the attempt was ended meanwhile.")
    with pytest.raises(WrongState):
        await behind.issue()
    await behind.connector.close()  # waits for what is under way
    # The login's end is set meanwhile, which may come before, between or after.
    seen = [request for request in behind.proxy.seen if request != RENEW]
    assert seen[-len(taken_back) :] == taken_back


async def test_a_server_that_does_not_answer_is_given_up(behind: Behind, openbao_server: ConfiguredOpenBao) -> None:
    hold = threading.Event()
    behind.proxy.rules.append(Rule(CREATE, hold=hold))
    settings = vault_settings(openbao_server, behind.address, timeout=0.2)
    hasty = VaultDatabase("orders-db", settings, openbao_server.database.broker_token, CLOCK)
    expires_at = CLOCK.now() + timedelta(minutes=5)
    handle = hasty.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed) as caught:
        await behind.ledger.issued(hasty.issue(handle, SCOPE, expires_at, behind.ledger.checkpoint))
    hold.set()
    await hasty.close()
    assert caught.value.reason is Reason.UPSTREAM_UNAVAILABLE
    assert not caught.value.outcome_known
    assert "no answer in time" in caught.value.message


# What fails, how it is told, and what its text must say.
REVOKING = {
    "our token refused": (Rule(REVOKE, errors(403, "permission denied")), Refused, "403"),
    "our token unknown": (Rule(REVOKE, errors(401, "no")), Refused, "401"),
    "server error": (Rule(REVOKE, errors(500, CANARY)), NotYet, "500"),
    "sealed": (Rule(REVOKE, errors(503, "Vault is sealed")), NotYet, "is sealed"),
    "SQL error": (Rule(REVOKE, errors(400, f'role "{CANARY}" (SQLSTATE 2BP01)')), NotYet, "SQLSTATE 2BP01"),
    "a proxy's 404": (Rule(REVOKE, page(404)), NotYet, "a proxy?"),
    "reply lost": (Rule(REVOKE, change=lost), NotYet, "broke off"),
    "busy": (Rule(REVOKE, errors(429, Retry_After="7")), NotYet, "429"),
    "accessor refused": (Rule(ACCESSOR, errors(403, "permission denied")), Refused, "403"),
    "accessor fails": (Rule(ACCESSOR, errors(500, CANARY)), NotYet, "500"),
    "lookup says 404": (Rule(LOOKUP, errors(404)), NotYet, "404"),
    "lookup says something else": (Rule(LOOKUP, errors(400, "invalid request")), NotYet, "400"),
    "lookup says two things": (Rule(LOOKUP, errors(400, "invalid lease", "x")), NotYet, "400"),
    "lookup of a proxy": (Rule(LOOKUP, page(400)), NotYet, "a proxy?"),
    "list by a proxy": (Rule(LIST, page(404)), NotYet, "a proxy?"),
    "list of no handler": (Rule(LIST, errors(404, "no handler for route")), NotYet, "no handler for route"),
    "list refused": (Rule(LIST, errors(403, "permission denied")), Refused, "403"),
    "list is half": (Rule(LIST, Reply(200, b'{"data":{"keys":"x"}}')), NotYet, "'keys'"),
}


@pytest.mark.parametrize("case", REVOKING)
async def test_a_revocation_without_proof_is_not_one(behind: Behind, case: str) -> None:
    rule, outcome_type, text = REVOKING[case]
    issued = await behind.issue()
    behind.proxy.rules.append(rule)
    outcome = await behind.revoke()
    assert isinstance(outcome, NotYet | Refused)
    assert type(outcome) is outcome_type
    assert text in outcome.why
    assert CANARY not in outcome.why
    assert issued.credential.password.reveal() not in outcome.why  # type: ignore[union-attr]
    if isinstance(outcome, NotYet):
        assert outcome.failed
        assert outcome.retry_after == (timedelta(seconds=7) if case == "busy" else None)


@pytest.mark.parametrize("answer", [Reply(204), Reply(202)], ids=["it lies", "it only queues"])
async def test_a_good_answer_is_no_proof(behind: Behind, answer: Reply) -> None:
    await behind.issue()
    # The token's end would end the login too, in its own time: that call must be as empty.
    behind.proxy.rules += [Rule(REVOKE, answer), Rule(ACCESSOR, Reply(204))]
    outcome = await behind.revoke()
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert "still there" in outcome.why


async def test_a_revocation_that_was_done_although_its_reply_was_lost_is_proven_next_time(behind: Behind) -> None:
    await behind.issue()
    behind.proxy.rules.append(Rule(REVOKE, change=lost))
    assert isinstance(await behind.revoke(), NotYet)
    behind.proxy.rules.clear()
    assert isinstance(await behind.revoke(), Revoked)


async def test_a_failed_revocation_of_what_is_gone_already_is_done(behind: Behind) -> None:
    """The token's expiry runs the same SQL: whoever comes second gets an error, and the lease is gone."""
    await behind.issue()
    assert isinstance(await behind.revoke(), Revoked)
    behind.proxy.rules.append(Rule(REVOKE, errors(400, "role does not exist (SQLSTATE 42704)")))
    assert isinstance(await behind.revoke(), Revoked)


async def test_an_invalid_accessor_is_a_token_that_is_gone(behind: Behind) -> None:
    await behind.issue()
    behind.proxy.rules.append(Rule(ACCESSOR, errors(400, "1 error occurred: invalid accessor")))
    assert isinstance(await behind.revoke(), Revoked)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("0", timedelta(0)),
        ("120", timedelta(minutes=2)),
        ("86400", timedelta(minutes=5)),  # cut: a wrong header must not keep a login alive for a day
        ("Thu, 01 May 2031 12:00:30 GMT", timedelta(seconds=30)),  # counted from the answer's Date, 12:00:00
        ("soon", None),
        ("-1", None),
        ("99999999999999999999", None),
    ],
)
def test_retry_after_is_read_as_the_rfc_says_and_cut(asked: str, waits: timedelta | None) -> None:
    headers = HTTPHeaderDict({"Retry-After": asked, "Date": NOW.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    assert retry_after_of(headers) == waits


def _unreadable() -> Secret:
    raise NotReady(Reason.UPSTREAM_UNAVAILABLE, f"file {CANARY} is not there")


@pytest.mark.parametrize(
    "token",
    [
        lambda: Secret(f"{CANARY}\n"),  # a trailing newline: the library's own message repeats the token
        lambda: Secret(f"{CANARY}\u20ac"),  # no header can hold it: the codec's error holds it
        _unreadable,
    ],
)
async def test_a_token_that_cannot_be_sent_is_not_told(
    openbao_server: ConfiguredOpenBao, token: Callable[[], Secret]
) -> None:
    connector, ledger = VaultDatabase("orders-db", vault_settings(openbao_server), token, CLOCK), Ledger()
    expires_at = CLOCK.now() + timedelta(minutes=5)
    handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed) as caught:
        await ledger.issued(connector.issue(handle, SCOPE, expires_at, ledger.checkpoint))
    assert_tells_no_secret(caught.value, CANARY)
    outcome = await connector.revoke({**handle, "accessor": "a", "lease": "b"}, ledger.context())
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    assert CANARY not in outcome.why
    await connector.close()


async def test_a_token_that_was_replaced_is_used_at_once(openbao_server: ConfiguredOpenBao) -> None:
    tokens = [Secret("s.wrong"), openbao_server.database.broker_token()]
    connector, ledger = VaultDatabase("orders-db", vault_settings(openbao_server), lambda: tokens[0], CLOCK), Ledger()
    expires_at = CLOCK.now() + timedelta(minutes=5)
    handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed) as caught:
        await ledger.issued(connector.issue(handle, SCOPE, expires_at, ledger.checkpoint))
    assert caught.value.reason is Reason.UPSTREAM_ROOT_REFUSED
    assert caught.value.outcome_known
    assert isinstance(await connector.revoke({**handle, "accessor": "a", "lease": "b"}, ledger.context()), Refused)
    del tokens[0]
    await ledger.issued(connector.issue(handle, SCOPE, expires_at, ledger.checkpoint))
    assert isinstance(await connector.revoke(ledger.handle, ledger.context(CLOCK.now())), Revoked)
    await connector.close()


async def test_a_closed_connector_says_so(openbao_server: ConfiguredOpenBao) -> None:
    connector, ledger = vault_connector(openbao_server), Ledger()
    expires_at = CLOCK.now() + timedelta(minutes=5)
    handle = connector.prepare(SCOPE, new_attempt(), HOLDER, expires_at)
    await connector.close()
    with pytest.raises(UpstreamFailed) as caught:
        await ledger.issued(connector.issue(handle, SCOPE, expires_at, ledger.checkpoint))
    assert caught.value.outcome_known
    outcome = await connector.revoke(handle, ledger.context())
    assert isinstance(outcome, NotYet)
    assert not outcome.failed


@pytest.mark.parametrize(
    ("grant", "attempt", "reason"),
    [
        ({}, "jb-a", Reason.CONFIG_INVALID),
        ({"role": ""}, "jb-a", Reason.CONFIG_INVALID),
        ({"role": "../sys/raw"}, "jb-a", Reason.CONFIG_INVALID),
        ({"role": "orders\n"}, "jb-a", Reason.CONFIG_INVALID),
        ({"role": 7}, "jb-a", Reason.CONFIG_INVALID),
        ({"role": "orders"}, "jb_a", Reason.SCOPE_TOO_LARGE),
        ({"role": "orders"}, "a" * 49, Reason.SCOPE_TOO_LARGE),  # token- + 48 + - + 8 = 63, PostgreSQL's longest name
        ({"role": "orders"}, "", Reason.SCOPE_TOO_LARGE),
    ],
)
def test_names_that_are_no_names_are_refused_before_any_call(
    openbao_server: ConfiguredOpenBao, grant: dict[str, object], attempt: str, reason: Reason
) -> None:
    connector = vault_connector(openbao_server, "http://127.0.0.1:1")
    with pytest.raises(InvalidInput) as caught:
        connector.prepare(make_scope(grant), attempt, HOLDER, NOW)  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert isinstance(caught.value, BrokerError)
