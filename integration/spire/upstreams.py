"""What a credential is issued by and opens: a real OpenBao in front of a real PostgreSQL with the orders database."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

from broker.dev.files import private_directory, secret_file
from broker.dev.loopback import LOOPBACK
from broker.dev.openbao import OpenBaoFacts, OpenBaoServer
from broker.dev.openbao_database import BROKER_POLICY, DatabaseEngineFacts, configure_database
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.secret import Secret

# What an agent asks the command line for, and what it does with it.
ASKED = ("--template", "orders-readonly", "--account", "shop", "--environment", "production", "--resource", "orders")
LOGS_IN = "import psycopg; print(*psycopg.connect('').execute('SELECT session_user, count(*) FROM orders').fetchone())"
# As deploy/connectors.yaml says it.
_ROLE, _AUDIENCE = "jit-broker", "openbao.prod.example.org"


class Upstreams:
    """Both servers, everything they write in ``directory``. No token of the broker's is kept anywhere: it logs in."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory, others_may_pass=True)
        self._postgres = PostgresServer(directory / "postgres")
        self._openbao = OpenBaoServer(directory / "openbao")
        self._engine: DatabaseEngineFacts | None = None
        self._closing = contextlib.ExitStack()

    def start(self) -> None:
        """Returns when logins can be issued."""
        with ThreadPoolExecutor(2) as both:
            postgres, openbao = both.submit(self._postgres.start), both.submit(self._openbao.start)
            facts, bao = postgres.result(), openbao.result()
        target = create_orders(facts, Secret(secret_file(self._directory / "openbao.password")))
        self._engine = configure_database(bao, target, token_file=None)

    def let_in(self, broker: str, bundle: Callable[[], str]) -> None:
        """``broker``, a SPIFFE ID, logs in to OpenBao with its JWT-SVID; ``bundle``: the trust domain's, as it is now.

        It is served as SPIRE's OIDC discovery provider serves it: a key that SPIRE brings in later is found, too.
        """
        keys = self._closing.enter_context(_served(bundle))
        _configure_login(self._openbao.facts, broker, keys)

    def stop(self) -> None:
        """Both, whatever comes of the first."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._postgres.destroy)
            stack.callback(self._openbao.stop)
            stack.callback(self._closing.close)

    @property
    def postgres(self) -> PostgresFacts:
        """Where PostgreSQL is, and its superuser."""
        return self._postgres.facts

    def environment(self) -> dict[str, str]:
        """What ``deploy/connectors.yaml`` refers to as ``env:NAME``. No secret is among it."""
        assert self._engine is not None
        target = self._engine.target
        return {
            "ORDERS_OPENBAO_ADDRESS": self._engine.address,
            "ORDERS_POSTGRES_HOST": target.host,
            "ORDERS_POSTGRES_PORT": str(target.port),
            "ORDERS_POSTGRES_DATABASE": target.database,
        }

    def logins(self) -> set[str]:
        """The logins that exist in PostgreSQL now and were issued, by whatever name."""
        with psycopg.connect(self.postgres.conninfo()) as admin:
            rows = admin.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolvaliduntil IS NOT NULL")
            return {name for (name,) in rows.fetchall()}


def _configure_login(bao: OpenBaoFacts, broker: str, keys: str) -> None:
    """What docs/connectors/vault-database.md has operators do, with the keys where SPIRE publishes them."""
    client = bao.root_client()
    client.write_data("sys/auth/jwt", data={"type": "jwt"})
    client.write_data("auth/jwt/config", data={"jwks_url": keys})
    role = {"role_type": "jwt", "user_claim": "sub", "bound_subject": broker, "bound_audiences": [_AUDIENCE]}
    token = {"token_policies": [BROKER_POLICY], "token_no_default_policy": True, "token_type": "service"}
    client.write_data(f"auth/jwt/role/{_ROLE}", data={**role, **token, "token_ttl": 3600, "token_max_ttl": 3600})


@contextlib.contextmanager
def _served(text: Callable[[], str]) -> Iterator[str]:
    """``text``, asked anew each time, at the address that is yielded."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_address[1]}/keys"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
