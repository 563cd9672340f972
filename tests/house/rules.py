"""What reviewers of a credential broker look for and no linter knows: rules of our own, each on one syntax tree.

Each is a class of fault that has been a published vulnerability of a product like this one. A rule names lines. What it
cannot see it does not claim: it reads one module, follows no values, and knows names by how the house spells them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from tests.house.project import nodes

Rule = Callable[[ast.Module], Iterator[int]]

# What holds something secret, by how it is named. A digest is public, a page's token is no credential.
_SECRET = re.compile(r"(?:^|_)(?:password|passphrase|secret|token|private_key|secret_key)\Z")
# What is public, and yet whoever could guess it could forge what it vouches for.
_FORGEABLE = re.compile(r"(?:^|_)(?:mac|hmac|signature)\Z")
_PUBLIC = re.compile(r"(?:^|_)page_token\Z")
# What must not be used while a transaction is open: it waits for somebody else.
_NETWORK = {"aiohttp", "boto3", "botocore", "grpc", "hvac", "http", "requests", "socket", "ssl", "urllib", "urllib3"}
_TRANSACTIONS = {"Transaction", "View"}
_WIDE = {"Exception", "BaseException"}
_YES = {"ALLOW", "ALLOWED", "Expired", "Grant", "Issued", "Revoked", "WORKS"}
_INTENTS = {"open_intent"}
_LOGGERS = {"log", "logger", "logging", "audit_log"}


def sql_from_text(module: ast.Module) -> Iterator[int]:
    """A statement put together from values: what an agent chose may become SQL. Constants, in capitals, may not."""
    for call in _calls(module):
        if _attribute(call.func) in ("execute", "executemany", "executescript") and call.args:
            yield from (part.lineno for part in ast.walk(call.args[0]) if _is_made_of_values(part))


def _is_made_of_values(part: ast.AST) -> bool:
    if isinstance(part, ast.FormattedValue):
        return not (isinstance(part.value, ast.Name) and part.value.id.isupper())
    if isinstance(part, ast.BinOp):
        return isinstance(part.op, ast.Mod | ast.Add)
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
        # Psycopg's SQL("...").format(Identifier(...)) quotes what it is given.
        composed = isinstance(part.func.value, ast.Call) and _called(part.func.value) == "SQL"
        return part.func.attr in ("format", "join", "replace") and not composed
    return False


def secret_compared(module: ast.Module) -> Iterator[int]:
    """``==`` on something secret: the time it takes tells how much of a guess is right. Take hmac.compare_digest."""
    for node in _nodes(module, ast.Compare):
        if any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
            sides = (node.left, *node.comparators)
            # Held against a constant it is asked what it is, or whether it is there, and not whether it is right.
            if any(_is_secret(side) for side in sides) and not any(_is_constant(side) for side in sides):
                yield node.lineno


def secret_told(module: ast.Module) -> Iterator[int]:
    """A secret, taken out of its type, on its way into a log line, an error's text or a terminal."""
    for node in _nodes(module, ast.Call, ast.Raise):
        if isinstance(node, ast.Call) and (_is_logging(node.func) or _name(node.func) in ("print", "repr")):
            told: list[ast.expr] = [*node.args, *(each.value for each in node.keywords)]
        elif isinstance(node, ast.Raise) and node.exc is not None:
            told = [node.exc]
        else:
            continue
        yield from (part.lineno for each in told for part in ast.walk(each) if _reveals(part))


def secret_as_text(module: ast.Module) -> Iterator[int]:
    """A field of a class that holds something secret and is a plain text: it prints wherever the object does."""
    for owner in _nodes(module, ast.ClassDef):
        for field in owner.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                named = {each.id for each in ast.walk(field.annotation) if isinstance(each, ast.Name)}
                if named & {"str", "bytes"} and _means_secret(field.target.id):
                    yield field.lineno


def unverified_tls(module: ast.Module) -> Iterator[int]:
    """A connection that trusts whoever answers."""
    for node in _nodes(module, ast.keyword, ast.Assign, ast.Attribute):
        if isinstance(node, ast.keyword) and node.arg in ("verify", "check_hostname") and _is(node.value, False):
            yield node.value.lineno
        if isinstance(node, ast.Assign) and _is(node.value, False):
            yield from (each.lineno for each in node.targets if _attribute(each) in ("verify", "check_hostname"))
        if _attribute(node) in ("CERT_NONE", "_create_unverified_context", "disable_warnings"):
            yield node.lineno  # type: ignore[attr-defined]


def failure_says_yes(module: ast.Module) -> Iterator[int]:
    """Whatever went wrong, the answer is a grant, or that something is dead: both must be somebody's word."""
    for node in _nodes(module, ast.ExceptHandler):
        if _catches_anything(node):
            for part in ast.walk(node):
                if isinstance(part, ast.Return) and part.value is not None and _says_yes(part.value):
                    yield part.lineno


def upstream_in_transaction(module: ast.Module) -> Iterator[int]:
    """Waiting for somebody else inside of a transaction: it holds everybody's writes up, and can undo none of it."""
    for node in _nodes(module, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda):
        if _takes_transaction(node):
            if isinstance(node, ast.AsyncFunctionDef):
                yield node.lineno
            for part in ast.walk(node):
                if isinstance(part, ast.Await) or (isinstance(part, ast.Call) and _root(part.func) in _NETWORK):
                    yield part.lineno


def issue_without_intent(module: ast.Module) -> Iterator[int]:
    """A connector is told to issue by something that did not wait for the intent to be durable before it."""
    if not any(_issues(call) for call in _calls(module)):
        return
    functions = {each.name: each for each in _nodes(module, ast.FunctionDef, ast.AsyncFunctionDef)}
    opening = {name for name, each in functions.items() if any(_called(call) in _INTENTS for call in _calls(each))}

    def intended(function: ast.AST, line: int) -> bool:
        return any(_called(call) in _INTENTS | opening and call.lineno < line for call in _calls(function))

    # From the call outwards, until the intent was opened before it; who nobody calls in here is the last to do so.
    open_ends = [(each, call.lineno) for each in functions.values() for call in _calls(each) if _issues(call)]
    seen: set[str] = set()
    while open_ends:
        function, line = open_ends.pop()
        if intended(function, line) or function.name in seen:
            continue
        seen.add(function.name)
        callers = [
            (each, call.lineno)
            for each in functions.values()
            for call in _calls(each)
            if _called(call) == function.name
        ]
        if not callers:
            yield function.lineno
        open_ends += callers


def handler_without_door(module: ast.Module) -> Iterator[int]:
    """An RPC handler that the door did not make: nobody establishes who calls it and what they may."""
    for call in _calls(module):
        name = _attribute(call.func) or _name(call.func)
        if name.endswith("_rpc_method_handler") or re.fullmatch(r"add_\w+Servicer_to_server", name):
            yield call.lineno
    for owner in _nodes(module, ast.ClassDef):
        if any(_attribute(base) == "GenericRpcHandler" for base in owner.bases):
            yield owner.lineno


RULES: Mapping[str, Rule] = {
    "sql-from-text": sql_from_text,
    "secret-compared": secret_compared,
    "secret-told": secret_told,
    "secret-as-text": secret_as_text,
    "unverified-tls": unverified_tls,
    "failure-says-yes": failure_says_yes,
    "upstream-in-transaction": upstream_in_transaction,
    "issue-without-intent": issue_without_intent,
    "handler-without-door": handler_without_door,
}

# ------------------------------------------------------------------ reading a tree


def _calls(within: ast.AST) -> Iterator[ast.Call]:
    if isinstance(within, ast.Module):
        return _nodes(within, ast.Call)
    return (node for node in ast.walk(within) if isinstance(node, ast.Call))


def _nodes(module: ast.Module, *kinds: type[ast.AST]) -> Iterator[Any]:
    found = _by_kind(module)
    return (node for kind in kinds for node in found.get(kind, ()))


@lru_cache(maxsize=1)  # every rule looks at the same module, one after the other
def _by_kind(module: ast.Module) -> dict[type[ast.AST], list[ast.AST]]:
    found: dict[type[ast.AST], list[ast.AST]] = {}
    for node in nodes(module):
        found.setdefault(type(node), []).append(node)
    return found


def _attribute(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else ""


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _called(call: ast.Call) -> str:
    return _attribute(call.func) or _name(call.func)


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return _name(node)


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) or (_attribute(node) or _name(node)).isupper()


def _means_secret(name: str) -> bool:
    return _SECRET.search(name) is not None and _PUBLIC.search(name) is None


def _is_secret(node: ast.AST) -> bool:
    name = _attribute(node) or _name(node)
    return _reveals(node) or _means_secret(name) or _FORGEABLE.search(name) is not None


def _reveals(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and _attribute(node.func) == "reveal"


def _is_logging(function: ast.AST) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and (_name(function.value) or _attribute(function.value)).lstrip("_") in _LOGGERS
    )


def _catches_anything(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or any(_name(each) in _WIDE for each in ast.walk(handler.type))


def _says_yes(value: ast.expr) -> bool:
    if _is(value, True):
        return True
    return any((_attribute(part) or _name(part)) in _YES for part in ast.walk(value))


def _takes_transaction(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return any(each.arg == "tx" or _name(each.annotation or each) in _TRANSACTIONS for each in arguments)


def _issues(call: ast.Call) -> bool:
    return _attribute(call.func) == "issue" and len(call.args) + len(call.keywords) == 4
