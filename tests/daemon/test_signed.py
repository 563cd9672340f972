"""A brokerd that asks for signatures: at its start, at a reload, at a swap, and after a restart."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from broker.cli.main import cli
from broker.deployfiles import listing
from broker.stores.audit_reader import AuditReader
from tests.api.served import serve, write_config
from tests.daemon.test_life import outcome, refuses, running, running_command
from tests.patience import PATIENCE, until
from tests.signing import deploy_section, signed


def edit(root: Path, before: str, after: str) -> Path:
    """The deploy directory, changed by somebody; not signed again."""
    template = root / "deploy" / "templates" / "orders-readonly.yaml"
    text = template.read_text()
    assert before in text
    template.write_text(text.replace(before, after))
    return root / "deploy"


def trail(root: Path, type_: str) -> list[dict[str, Any]]:
    """What the audit trail of a brokerd says of events of a type."""
    with AuditReader(root / "state" / "ledger.sqlite3") as reader:
        return [dict(record.data) for record in reader.records() if record.type == type_]


def following(root: Path, act: Callable[[], Any]) -> dict[str, Any]:
    """brokerd's answer to ``act``."""
    before = outcome(root)["generation"]
    act()
    found: dict[str, Any] = until(lambda: (told := outcome(root))["generation"] > before and told)
    return found


@pytest.mark.slow
def test_the_whole_story(tmp_path: Path) -> None:
    """Real processes and the command line: signed, served, changed, refused, signed anew, replayed, refused."""
    config = write_config(tmp_path, deploy=deploy_section())
    deploy = tmp_path / "deploy"

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, list(arguments))
        return done.exit_code, done.output

    assert "set.dsse.json:1: is missing (deploy_keys is set: 2 people must sign" in refuses(config)
    signed(deploy, "dana-1")
    assert "are by 1 person, dana (its author); 2 must sign" in refuses(config)
    signed(deploy, "dana-1", "alex-1", serial=1)
    first_set = {path: path.read_bytes() for path in deploy.rglob("*") if path.is_file()}

    with running_command(config) as (process, _):
        first = outcome(tmp_path)
        assert first["ok"]

        edit(tmp_path, "15m", "14m")
        code, said = run("reload", "--config", str(config))
        assert code == 1
        assert "payload: signs sha256:" in said
        assert outcome(tmp_path) == first  # brokerd never heard of it; by SIGHUP it does
        told = following(tmp_path, lambda: process.send_signal(signal.SIGHUP))
        assert (told["ok"], told["digest"]) == (False, first["digest"])

        signed(deploy, "kim-1", "dana-2", author="kim", serial=2)
        code, said = run("reload", "--config", str(config))
        assert code == 0, said
        second = outcome(tmp_path)
        assert said == f"in force sha256:{second['digest']}\n"
        assert second["digest"] != first["digest"]
        code, said = run("check", "--config", str(config))
        assert code == 0, said
        assert said.endswith("signed by dana, kim; author kim, serial 2\n")  # compared with the ledger

        # The first one again, with all its signatures.
        for path, data in first_set.items():
            path.write_bytes(data)
        code, said = run("reload", "--config", str(config))
        assert code == 1
        assert "serial: is 1, and serial 2 has been in force" in said
        assert outcome(tmp_path)["digest"] == second["digest"]
        code, said = run("check", "--config", str(config))
        assert (code, "serial: is 1, and serial 2 has been in force" in said) == (1, True)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)

    # A restart forgets nothing: the older set is refused at start, too, and the trail says so.
    assert "serial: is 1, and serial 2 has been in force" in refuses(config)
    activated, refused = trail(tmp_path, "deploy.activated"), trail(tmp_path, "deploy.refused")
    assert [each["digest"] for each in activated] == [first["digest"], second["digest"]]
    chosen = ("author", "serial", "signers", "keys")
    assert [[each[name] for name in chosen] for each in activated] == [
        ["dana", 1, ["alex", "dana"], ["alex-1", "dana-1"]],
        ["kim", 2, ["dana", "kim"], ["dana-2", "kim-1"]],
    ]
    assert ["signs sha256" in each["problems"][0] for each in refused] == [True, False, False]
    assert all("serial: is 1" in each["problems"][0] for each in refused[1:])

    # Back on purpose: the old content, signed anew.
    signed(deploy, "dana-1", "alex-1", serial=3)
    with running(config):
        assert outcome(tmp_path)["digest"] == first["digest"]


async def test_a_set_without_signatures_keeps_the_last_good_one(tmp_path: Path) -> None:
    write_config(tmp_path, deploy=deploy_section())
    deploy = signed(tmp_path / "deploy", "dana-1", "alex-1")
    async with serve(tmp_path, deploy=deploy_section()) as served:
        first = served.daemon._files.current
        shutil.rmtree(deploy / "signatures")
        assert not await served.daemon.reloader.reload()
        assert served.daemon._files.current is first
        assert "is missing" in outcome(tmp_path)["problems"][0]
        (refused,) = [each for each in await served.audit() if each["type"] == "deploy.refused"]
        assert listing.ENVELOPE in refused["data"]["problems"][0]


async def test_a_swap_to_a_set_that_is_not_signed(tmp_path: Path) -> None:
    write_config(tmp_path, deploy=deploy_section())
    deploy = signed(tmp_path / "deploy", "dana-1", "alex-1")
    deploy.rename(tmp_path / "v1")
    deploy.symlink_to("v1")
    shutil.copytree(tmp_path / "v1", tmp_path / "v2")
    async with serve(tmp_path, deploy=deploy_section()) as served:
        first = served.daemon._files.current
        template = tmp_path / "v2" / "templates" / "orders-readonly.yaml"
        template.write_text(template.read_text().replace("15m", "13m"))
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").rename(deploy)
        await served.daemon.reloader.if_swapped()
        assert not outcome(tmp_path)["ok"]
        assert served.daemon._files.current is first


async def test_a_set_that_is_refused_for_another_reason_uses_up_no_serial(tmp_path: Path) -> None:
    """Signed by enough people, but wrong: nothing of it is remembered."""
    write_config(tmp_path, deploy=deploy_section())
    deploy = signed(tmp_path / "deploy", "dana-1", "alex-1", serial=1)
    async with serve(tmp_path, deploy=deploy_section()) as served:
        template = deploy / "templates" / "orders-readonly.yaml"
        good = template.read_text()
        template.write_text(good + "surprise: 1\n")
        signed(deploy, "dana-1", "alex-1", serial=5)
        assert not await served.daemon.reloader.reload()
        template.write_text(good.replace("15m", "14m"))
        signed(deploy, "dana-1", "alex-1", serial=2)
        assert await served.daemon.reloader.reload()


@pytest.mark.slow
def test_no_unsigned_detour_past_the_serial(tmp_path: Path) -> None:
    """Keys taken out of the configuration and put back: what was in force before still counts."""
    config = write_config(tmp_path, deploy=deploy_section())
    asking = config.read_text()
    deploy = signed(tmp_path / "deploy", "dana-1", "alex-1", serial=4)
    with running(config):
        assert outcome(tmp_path)["ok"]
    document = yaml.safe_load(asking)
    document["deploy"] = {"directory": "deploy"}
    config.write_text(yaml.safe_dump(document))
    with running(config):
        assert outcome(tmp_path)["ok"]
    assert ["serial" in each for each in trail(tmp_path, "deploy.activated")] == [True, False]
    config.write_text(asking)
    signed(deploy, "dana-1", "alex-1", serial=3)
    assert "is 3, and serial 4 has been in force" in refuses(config)


def test_the_answer_of_a_reload_stays_as_it_was(tmp_path: Path) -> None:
    config = write_config(tmp_path, deploy=deploy_section())
    signed(tmp_path / "deploy", "dana-1", "alex-1")
    with running(config):
        told = json.loads((tmp_path / "state" / "reload.json").read_text())
        assert set(told) == {"generation", "pid", "begun", "ok", "digest", "problems"}
