"""The upstream, a process of its own: as much of OpenBao's API as kind ``vault-database`` uses, and the truth in a log.

``python -m tests.kill.upstream --log FILE --ledger FILE ...`` prints its address, serves, and is calm once its standard
input says so. OpenBao itself is what the connector's own tests run against; here an upstream is wanted that loses
answers, carries requests out late, and writes down what it did before it says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.kill.engine import MOUNT, ROLES, Engine, Login, NoSuchToken
from tests.kill.intents import Noted, in_sqlite
from tests.kill.mishaps import Mishap, Mishaps
from tests.kill.upstream_log import UpstreamLog

BROKER_TOKEN = "s.the-brokers-own"
TOKEN_ROLE = "jit-attempt"
_LEASES = "/v1/sys/leases"
_CALM = "calm\n"

Answer = tuple[int, Mapping[str, Any] | None]


class Upstream:
    """The process, as others hold it: a context manager."""

    module = "tests.kill.upstream"

    def __init__(self, log: Path, ledger: Path, *, seed: int, mishaps: float, slowest: float = 0.02) -> None:
        self.log = log
        self._command = [sys.executable, "-m", self.module, "--log", str(log), "--ledger", str(ledger)]
        self._command += ["--seed", str(seed), "--mishaps", str(mishaps), "--slowest", str(slowest)]
        self.address = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        if not self.address:
            raise RuntimeError(f"the upstream did not start: exit code {self._process.wait()}")
        return self

    def calm(self) -> None:
        """From now on it does what it is asked."""
        assert self._process.stdin is not None
        self._process.stdin.write(_CALM)
        self._process.stdin.flush()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, engine: Engine, mishaps: Mishaps) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.engine = engine
        self.mishaps = mishaps

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked was killed; that is what this is for."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def _meet(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        if len(sent) < length:  # who asked was killed while it did
            self.close_connection = True
            return
        body = json.loads(sent) if length else {}
        time.sleep(self.server.mishaps.takes())
        mishap = self.server.mishaps.next()
        if mishap is Mishap.LATE:
            later = threading.Timer(self.server.mishaps.late(), self._carry_out, (body,))
            later.daemon = True
            later.start()
        answer = (500, {"errors": ["internal error"]}) if mishap is Mishap.REFUSED else None
        if mishap in (Mishap.NONE, Mishap.LOST):
            answer = self._carry_out(body)
        if answer is None or mishap is Mishap.LOST:
            self.close_connection = True
            return
        self._say(*answer)

    do_GET = do_POST = do_PUT = do_LIST = _meet  # noqa: N815 - the base class's names

    def _carry_out(self, body: dict[str, Any]) -> Answer:
        try:
            return _Call(self.server.engine, self.headers.get("X-Vault-Token") or "", body).answer(
                self.command, self.path.partition("?")[0]
            )
        except NoSuchToken:
            return 403, {"errors": ["permission denied"]}

    def _say(self, status: int, body: Mapping[str, Any] | None) -> None:
        said = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nowhere: the log is of what was done, not of who asked."""


class _Call:
    """One request, with the token it came with."""

    def __init__(self, engine: Engine, token: str, body: dict[str, Any]) -> None:
        self._engine = engine
        self._token = token
        self._body = body

    def answer(self, method: str, path: str) -> Answer:
        """Raises NoSuchToken: 403."""
        if path.startswith(f"/v1/{MOUNT}/creds/"):
            return self._credentials(path.rsplit("/", 1)[1])
        if self._token != BROKER_TOKEN:
            raise NoSuchToken
        if method == "LIST" and path.startswith(f"{_LEASES}/lookup/"):
            return self._listed(path.removeprefix(f"{_LEASES}/lookup/"))
        calls: dict[str, Callable[[], Answer]] = {
            f"/v1/auth/token/create/{TOKEN_ROLE}": self._create_token,
            "/v1/auth/token/revoke-accessor": self._revoke_accessor,
            "/v1/auth/token/lookup-self": lambda: (200, {"data": {"policies": ["jit"], "orphan": True}}),
            f"{_LEASES}/renew": self._renew,
            f"{_LEASES}/revoke": self._revoke,
            f"{_LEASES}/lookup": self._lookup,
        }
        known = calls.get(path)
        return (404, {"errors": ["no handler for route"]}) if known is None else known()

    def _create_token(self) -> Answer:
        policies, ttl = self._body["policies"], int(self._body["ttl"].removesuffix("s"))
        made = self._engine.make_token(self._body["meta"]["attempt"], policies[0], ttl)
        told = {"client_token": made.secret, "accessor": made.accessor, "policies": policies, "lease_duration": ttl}
        return 200, {"auth": {**told, "renewable": False, "orphan": True, "token_type": "service"}}

    def _credentials(self, role: str) -> Answer:
        token = self._engine.token(self._token)
        if role not in ROLES or token.policy != f"{TOKEN_ROLE}-{role}":
            raise NoSuchToken
        made = self._engine.make_login(token, role)
        told = {"username": made.username, "password": made.password}
        return 200, {"lease_id": made.lease, "lease_duration": 3600, "renewable": True, "data": told}

    def _revoke_accessor(self) -> Answer:
        if self._engine.end_token(self._body["accessor"]):
            return 204, None
        return 200, {"data": None, "warnings": ["No token found with this accessor"]}

    def _renew(self) -> Answer:
        left = self._engine.shorten(self._body["lease_id"], int(self._body["increment"]))
        if left is None:
            return 400, {"errors": ["lease not found"]}
        return 200, {"lease_id": self._body["lease_id"], "lease_duration": left, "renewable": True}

    def _revoke(self) -> Answer:
        self._engine.end_login(self._body["lease_id"], "revoked")
        return 204, None

    def _lookup(self) -> Answer:
        found = self._engine.find(self._body["lease_id"])
        return (400, {"errors": ["invalid lease"]}) if found is None else (200, {"data": _facts(found)})

    def _listed(self, folder: str) -> Answer:
        prefix, _, role = folder.strip("/").rpartition("/")
        if prefix == f"{MOUNT}/creds":
            keys = self._engine.listed(role)
        else:
            keys = [f"{each}/" for each in ROLES if self._engine.listed(each)]
        return (200, {"data": {"keys": keys}}) if keys else (404, {"errors": []})


def _facts(login: Login) -> dict[str, Any]:
    left, now = login.left(_now_ms()), _now_ms()
    times = {"issue_time": _rfc3339(login.issued_ms), "expire_time": _rfc3339(now + 1000 * left)}
    return {"id": login.lease, **times, "ttl": left, "renewable": True}


def _rfc3339(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(notes: Callable[[Path], Noted] = in_sqlite) -> None:
    """Serve until killed. ``notes``: how what stands in ``--ledger`` is asked."""
    parser = argparse.ArgumentParser()
    for name in ("--log", "--ledger"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    for name in ("--mishaps", "--slowest"):
        parser.add_argument(name, type=float, required=True)
    said = parser.parse_args()
    engine = Engine(UpstreamLog(said.log), notes(said.ledger), _now_ms)
    mishaps = Mishaps(said.seed, said.mishaps, said.slowest)
    server = _Server(engine, mishaps)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    for line in sys.stdin:
        if line == _CALM:
            mishaps.calm()


if __name__ == "__main__":
    main()
