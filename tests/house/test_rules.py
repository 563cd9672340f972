"""The house breaks none of its own rules, and each rule finds what it is there for."""

from __future__ import annotations

import ast
from collections.abc import Mapping

import pytest

from tests.house.project import ROOT, modules, tree
from tests.house.rules import RULES

# What is meant, by (rule, module), and why. One that is not needed any more fails.
WAIVED: Mapping[tuple[str, str], str] = {
    ("handler-without-door", "broker/api/door.py"): "this is the door",
    (
        "handler-without-door",
        "broker/api/server.py",
    ): "health and reflection tell nobody's secrets; only the proven reach them",
    (
        "handler-without-door",
        "broker/dev/workload_api.py",
    ): "SPIFFE's own service, for development: a socket per identity",
    ("secret-as-text", "broker/ports/tasks.py"): "id_token is the digest of a token, to refuse its second use",
    ("secret-as-text", "broker/stores/rows.py"): "id_token is the digest of a token, to refuse its second use",
    ("secret-compared", "broker/api/tls_material.py"): "of files: their sizes and times, and nothing that is signed",
    (
        "sql-from-text",
        "broker/stores/ledger_file.py",
    ): "names of pragmas, which no statement takes as parameters; all constants",
    (
        "unverified-tls",
        "broker/client/probe.py",
    ): "doctor looks at a certificate to say what is wrong with it, and sends nothing",
}

# By rule: what breaks it, and what only looks so.
PLANTED: Mapping[str, tuple[list[str], list[str]]] = {
    "sql-from-text": (
        [
            'connection.execute(f"DROP ROLE {name}")',
            'connection.execute("DROP ROLE " + name)',
            'connection.executescript("DROP ROLE %s" % name)',
            'cursor.execute("DROP ROLE {}".format(name), ())',
            'cursor.execute("".join(statements))',
        ],
        [
            'connection.execute("SELECT :name", {"name": name})',
            'connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")',
            'cursor.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))',
        ],
    ),
    "secret-compared": (
        [
            "if given == code.reveal(): pass",
            "ok = row.mac != made",
            "ok = request.password == expected",
            "ok = session_token in seen or session_token == given",
        ],
        [
            "hmac.compare_digest(given, code.reveal())",
            "if digest == other.digest: pass",
            'if token == "": pass',
            "if page_token == given: pass",
            "if row.mac is None: pass",
        ],
    ),
    "secret-told": (
        [
            'log.info("issued", password=login.password.reveal())',
            'self._log.debug(f"{secret.reveal()} made")',
            "print(secret.reveal())",
            'raise InvalidInput(f"not {secret.reveal()}")',
        ],
        ['log.info("issued", attempt=attempt.id)', "send(secret.reveal())", "raise InvalidInput(str(secret))"],
    ),
    "secret-as-text": (
        [
            "class Login:\n    password: str",
            "class Session:\n    session_token: str | None = None",
            "class Key:\n    private_key: bytes",
        ],
        ["class Login:\n    password: Secret", "class Page:\n    next_page_token: str", "class Row:\n    mac: bytes"],
    ),
    "unverified-tls": (
        [
            "requests.get(url, verify=False)",
            "context.check_hostname = False",
            "context.verify_mode = ssl.CERT_NONE",
            "context = ssl._create_unverified_context()",
            "urllib3.disable_warnings()",
        ],
        ["requests.get(url, verify=ca_file)", "context.check_hostname = True"],
    ),
    "failure-says-yes": (
        [
            "try:\n    ask()\nexcept Exception:\n    return Decision(Effect.ALLOW)",
            "try:\n    revoke()\nexcept (OSError, BaseException):\n    return Revoked()",
            "try:\n    check()\nexcept:\n    return True",
        ],
        [
            "try:\n    revoke()\nexcept Exception:\n    return NotYet('broken')",
            "try:\n    look()\nexcept NoSuchLease:\n    return Revoked()",
        ],
    ),
    "upstream-in-transaction": (
        [
            "async def add(tx: Transaction): pass",
            "def add(tx: Transaction):\n    requests.post(url)",
            "def look(view: View):\n    return boto3.client('sts').get_caller_identity()",
            "submit(lambda tx: urllib.request.urlopen(url))",
        ],
        [
            "def add(tx: Transaction):\n    tx.run('insert', row)",
            "async def add(store):\n    await store.open_intent(intent)",
        ],
    ),
    "issue-without-intent": (
        [
            "async def grant(self):\n    return await connector.issue(handle, scope, ends, checkpoint)",
            "async def grant(self):\n    issued = await connector.issue(handle, scope, ends, checkpoint)\n"
            "    await store.open_intent(intent)",
            "async def grant(self):\n    return await self._issue()\n"
            "async def ask(self):\n    await store.open_intent(intent)\n    return await self._issue()\n"
            "async def _issue(self):\n    return await connector.issue(handle, scope, ends, checkpoint)",
        ],
        [
            "async def grant(self):\n    await store.open_intent(intent)\n"
            "    return await connector.issue(handle, scope, ends, checkpoint)",
            "async def grant(self):\n    opened = await self._open()\n    return await self._issue(opened)\n"
            "async def _open(self):\n    return await store.open_intent(intent)\n"
            "async def _issue(self, opened):\n    return await connector.issue(handle, scope, ends, checkpoint)",
        ],
    ),
    "handler-without-door": (
        [
            "handler = grpc.unary_unary_rpc_method_handler(reveal)",
            "pb_grpc.add_AdminServiceServicer_to_server(service, server)",
            "class Side(grpc.GenericRpcHandler): pass",
        ],
        ["door.handlers(service)"],
    ),
}


def broken(source: str, rule: str) -> set[int]:
    return set(RULES[rule](ast.parse(source)))


def test_the_house_keeps_its_rules() -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for module in modules():
        for name, rule in RULES.items():
            if lines := sorted(set(rule(tree(module)))):
                found[name, module.relative_to(ROOT).as_posix()] = lines
    assert {where: lines for where, lines in found.items() if where not in WAIVED} == {}
    assert WAIVED.keys() - found.keys() == set(), "waived, and not broken any more"


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_finds_what_it_is_for_and_nothing_else(rule: str) -> None:
    planted, innocent = PLANTED[rule]
    assert [source for source in planted if not broken(source, rule)] == []
    assert [source for source in innocent if broken(source, rule)] == []


def test_a_finding_is_a_line() -> None:
    assert broken('a = 1\nconnection.execute(f"DROP ROLE {name}")\n', "sql-from-text") == {2}


def test_every_rule_is_told_to_contributors() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []
