import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli.check import check
from tests.config.test_config import MINIMAL
from tests.deployfiles.test_broken import BROKEN, HERE, private_copy


def run(*arguments: object) -> Result:
    return CliRunner().invoke(check, [str(argument) for argument in arguments])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "good")


def test_a_good_set_is_told_in_one_line(good: Path) -> None:
    result = run(good)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{good}: ok, 1 agent, 2 templates, 2 policies, digest sha256:")
    assert len(result.stdout.strip().rpartition(":")[2]) == 64
    assert result.stderr == ""


def test_every_problem_goes_to_standard_error_and_the_exit_status_says_so(tmp_path: Path) -> None:
    broken = private_copy(HERE / "broken/unknown-key", tmp_path / "broken")
    result = run(broken)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{broken}/agents/analyst.yaml:1: tier: is missing",
        f"{broken}/agents/analyst.yaml:4: teir: is not a known key (Check the spelling against deploy/schemas.)",
    ]


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_example_fails_the_command(name: str, tmp_path: Path) -> None:
    result = run(private_copy(HERE / "broken" / name, tmp_path / "set"))
    assert result.exit_code == 1
    for file, line, *_ in BROKEN[name]:
        assert f"{tmp_path}/set/{file}:{line}: " in result.stderr


def test_a_world_writable_file_fails_it(good: Path) -> None:
    (good / "people.yaml").chmod(0o646)
    result = run(good)
    assert result.exit_code == 1
    assert f"{good}/people.yaml:1: is writable by the world (mode 0646) (run: chmod go-w" in result.stderr


def test_several_paths_and_config_files_are_checked_together(good: Path, tmp_path: Path) -> None:
    config = tmp_path / "brokerd.yaml"
    config.write_text(MINIMAL)
    config.chmod(0o600)
    assert run(good, config).exit_code == 0
    assert f"{config}: ok, brokerd of example.org" in run(good, config).stdout
    config.write_text(MINIMAL + "typo: 1\n")
    result = run(good, config, tmp_path / "absent")
    assert result.exit_code == 1
    assert "good: ok" in result.stdout
    assert f"{config}:19: typo: is not a known key" in result.stderr
    assert "absent:1: cannot be read" in result.stderr


def test_programs_get_json(good: Path, tmp_path: Path) -> None:
    broken = private_copy(HERE / "broken/zero-ttl", tmp_path / "broken")
    result = run("--format", "json", good, broken)
    assert result.exit_code == 1
    first, second = json.loads(result.stdout)
    assert (first["ok"], first["agents"], first["problems"]) == (True, 1, [])
    assert first["digest"].startswith("sha256:")
    assert second["ok"] is False
    (problem,) = second["problems"]
    assert (problem["file"], problem["line"], problem["field"]) == (f"{broken}/templates/orders.yaml", 9, "max_ttl")


def test_nothing_to_check_is_a_usage_error() -> None:
    assert run().exit_code == 2


@pytest.mark.parametrize(("longest", "told"), [("2h", "7200 s, above the ceiling"), ("500ms", "0.5 s, below what")])
def test_what_a_connector_cannot_honour_is_a_warning(good: Path, longest: str, told: str) -> None:
    path = good / "templates" / "orders.yaml"
    lines = path.read_text().splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("max_ttl:")]
    lines[at] = f"max_ttl: {longest}"
    path.write_text("\n".join(lines))
    result = run(good)
    assert result.exit_code == 0  # it is taken all the same
    (warning,) = result.stderr.splitlines()
    assert warning.startswith(f"warning: {path}:{at + 1}: max_ttl: Template orders")
    assert told in warning
    (checked,) = json.loads(run(good, "--format", "json").stdout)
    assert (checked["ok"], checked["problems"], len(checked["warnings"])) == (True, [], 1)
