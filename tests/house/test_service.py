"""The unit for systemd: what it starts is there, and it leaves brokerd the time that it takes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from broker.cli.reload import reload
from broker.config.model import Limits
from broker.daemon.main import EX_CONFIG
from tests.house.project import ROOT

UNIT = ROOT / "deploy" / "systemd" / "jit-broker.service"
PAGE = ROOT / "docs" / "running.md"
HOME = Path("/opt/jit-broker/bin")


def service() -> dict[str, str]:
    """The last value of each key: systemd adds the lines of a list up, which no test here asks about."""
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    return dict(parser["Service"])


def test_it_starts_and_reloads_by_commands_that_are_there(tmp_path: Path) -> None:
    start, again = (shlex.split(service()[key]) for key in ("ExecStart", "ExecReload"))
    assert start[:2] == [str(HOME / "brokerd"), "--config"]
    assert again[:2] == [str(HOME / "broker"), "reload"]
    assert again[-1] == start[-1] == "/etc/jit-broker/brokerd.yaml"
    (here := tmp_path / "brokerd.yaml").touch()
    assert reload.make_context("reload", [*again[2:-1], str(here)]).params["config_file"] == here


def test_it_is_killed_only_after_the_longest_drain_that_is_usual() -> None:
    assert float(service()["TimeoutStopSec"]) > 2 * Limits().drain_timeout.total_seconds()


def test_a_wrong_configuration_is_not_started_again_and_again() -> None:
    assert service()["RestartPreventExitStatus"] == str(EX_CONFIG)
    assert service()["Restart"] == "always"


def test_its_directories_are_the_page_s() -> None:
    page = PAGE.read_text()
    for key, root in (("StateDirectory", "/var/lib"), ("LogsDirectory", "/var/log")):
        assert f"`{root}/{service()[key]}`" in page


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_understands_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    true = shutil.which("true")
    assert true is not None
    lines = UNIT.read_text().splitlines()
    # What it starts is not installed here.
    unit.write_text("\n".join(f"{line.split('=')[0]}={true}" if line.startswith("Exec") else line for line in lines))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
