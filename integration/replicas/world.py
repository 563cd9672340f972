"""Three daemons on one ledger, their agents, their upstream, and everything between them that can fail."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from broker.dev.loopback import LOOPBACK, free_port
from broker.secret import Secret
from broker.stores.postgres_connection import ServerAddress, connect
from broker.stores.postgres_migrate import migrate
from integration.replicas.judging import judged, until_all_is_over, writers
from integration.replicas.noted import Upstream
from integration.replicas.servers import Primary, Standby
from integration.replicas.setting import ReplicaSetting
from integration.replicas.wires import Wires
from tests.kill.agents import Agents
from tests.kill.daemon import Daemon
from tests.kill.loop import complaints_in
from tests.kill.verdict import Verdict
from tests.patience import PATIENCE

REPLICAS = 3
AGENTS = 6
HEALED_SECONDS = 120.0
DATABASE = "ledger"


@dataclass
class World:
    """What a story changes. ``ways``: each replica's own ports to the primary and, where there is one, the standby."""

    directory: Path
    primary: Primary
    standby: Standby | None
    wires: Wires
    ways: list[tuple[int, ...]]
    setting: ReplicaSetting
    upstream: Upstream
    daemons: list[Daemon]
    dsn: str = field(repr=False)  # straight to whichever is the primary
    complaints: list[str]
    _dead: set[str] = field(default_factory=set)

    @contextmanager
    def load(self, seed: int) -> Iterator[Agents]:
        """Agents at work for as long as the block lasts; then everything is healed, comes to its end, and is judged."""
        with Agents(self.setting, self.directory / "agents.jsonl", seed) as agents:
            yield agents
            self.upstream.calm()
            for daemon in self.daemons:
                daemon.until_ready()
            agents.finish(HEALED_SECONDS)

    def kill(self, number: int) -> None:
        """SIGKILL one, and start it again."""
        self.daemons[number].kill()
        self.complaints += complaints_in(self.daemons[number].said(), number)
        self.daemons[number].start()

    def kill_for_good(self, number: int) -> tuple[str, int]:
        """SIGKILL one; by which name the ledger knows it, and how many attempts it had in hand."""
        self.daemons[number].kill()
        in_hand, heard = self._in_hand(), self._heard()
        self.complaints += complaints_in(self.daemons[number].said(), number)
        beats = {writer: 0 for writer in heard if writer not in self._dead}
        end = time.monotonic() + PATIENCE
        # Each of the others will be heard, and again: a last word of the dead one may be on its way to the disk.
        while sum(count < 2 for count in beats.values()) > 1:
            assert time.monotonic() < end, f"only one may be dead, of {beats}"
            time.sleep(0.1)
            now = self._heard()
            beats = {writer: count + (now[writer] != heard[writer]) for writer, count in beats.items()}
            heard = now
        (dead,) = (writer for writer, count in beats.items() if count < 2)
        self._dead.add(dead)
        return dead, in_hand.get(dead, 0)

    def start(self, number: int) -> None:
        """One that was killed for good."""
        self.daemons[number].start()
        self.daemons[number].until_ready()

    def in_hand_of(self, writer: str) -> int:
        """How many attempts that may be alive are some replica's work."""
        return self._in_hand().get(writer, 0)

    def _in_hand(self) -> dict[str, int]:
        with psycopg.connect(self.dsn) as connection:
            query = "SELECT held_by, count(*) FROM attempts WHERE due_at IS NOT NULL GROUP BY held_by"
            return {str(writer): int(count) for writer, count in connection.execute(query).fetchall()}

    def _heard(self) -> dict[str, int]:
        """When each was heard last (ms)."""
        with psycopg.connect(self.dsn) as connection:
            rows = connection.execute("SELECT writer, seen_at FROM replicas").fetchall()
        return {str(writer): int(seen_at) for writer, seen_at in rows}

    @contextmanager
    def stopped(self, number: int) -> Iterator[None]:
        """SIGSTOP one; SIGCONT when the block ends."""
        pid = self.daemons[number].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def judge(self) -> Verdict:
        """Once all is over."""
        until_all_is_over(self.dsn, HEALED_SECONDS)
        verdict = judged(self.dsn, self.directory)
        self.complaints += [line for each in self.daemons for line in complaints_in(each.said(), 0)]
        print(f"\n{verdict.figures}, by writer {sorted(writers(self.dsn).values())}")
        faults = [*verdict.faults, *self.complaints]
        assert not faults, "\n".join(faults)
        return verdict


@contextmanager
def world(directory: Path, *, standby: bool = False, mishaps: float = 0.02) -> Iterator[World]:
    """Everything, running; nothing is asked yet."""
    with contextlib.ExitStack() as undo:
        primary = undo.enter_context(Primary(directory / "primary"))
        undo.callback(primary.destroy)
        primary.ask(f"CREATE DATABASE {DATABASE}")
        follower = None
        if standby:
            follower = undo.enter_context(Standby(_made(directory / "standby"), primary.facts))
            undo.callback(follower.destroy)
            primary.wait_for_standby()
        ports = [primary.facts.port, *([] if follower is None else [follower.facts.port])]
        ways = [tuple(free_port() for _ in ports) for _ in range(REPLICAS)]
        wires = undo.enter_context(Wires((way, to) for each in ways for way, to in zip(each, ports, strict=True)))
        setting = ReplicaSetting(directory / "brokers", AGENTS, [_dsn(primary, each) for each in ways])
        straight = _dsn(primary, ports)
        (where := directory / "straight.dsn").write_text(straight)
        upstream = undo.enter_context(Upstream(directory / "upstream.jsonl", where, seed=1, mishaps=mishaps))
        configs = setting.write(upstream.address)
        _migrate(straight)
        daemons = [Daemon(config, port) for config, port in zip(configs, setting.operations_ports, strict=True)]
        for daemon in daemons:
            undo.callback(daemon.end)
            daemon.start()
        for daemon in daemons:
            daemon.until_ready()
        yield World(directory, primary, follower, wires, ways, setting, upstream, daemons, straight, [])


def pause(seconds: float, agents: Agents) -> None:
    """Let the load go on for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        agents.check()
        time.sleep(0.05)


def _made(directory: Path) -> Path:
    directory.mkdir(mode=0o711)
    return directory


def _dsn(server: Primary, ports: list[int] | tuple[int, ...]) -> str:
    """Whichever of ``ports`` is the primary."""
    facts = server.facts
    return make_conninfo(
        host=",".join(LOOPBACK for _ in ports),
        port=",".join(map(str, ports)),
        dbname=DATABASE,
        user=facts.superuser,
        password=facts.password.reveal(),
        target_session_attrs="read-write",
        connect_timeout=3,
    )


def _migrate(dsn: str) -> None:
    """As ``broker migrate`` does."""
    connection = connect(ServerAddress(Secret(dsn)), role="owner")
    migrate(connection)
    connection.close()
