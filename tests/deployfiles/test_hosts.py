"""Where a database is said to be: nothing that no resolver and no libpq could take."""

from pathlib import Path

import pytest

from broker.deployfiles import load
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy


def set_with(tmp_path: Path, host: str) -> Path:
    path = private_copy(HERE / "good", tmp_path / "set")
    file = path / "connectors.yaml"
    file.write_text(file.read_text().replace("host: db.example.org", f"host: {host}"))
    return path


@pytest.mark.parametrize(
    "host", ["db", "db-1.example.org", "db.example.org.", "10.0.0.5", '"::1"', "/run/postgresql", "env:DB_HOST", "a_b"]
)
def test_a_host_is_taken(tmp_path: Path, host: str) -> None:
    load(set_with(tmp_path, host))


@pytest.mark.parametrize(
    "host",
    [
        '"db\\nsslmode=disable"',
        '"\\a"',
        '"http://db"',
        '"db:5432"',
        '"d\u0431"',
        '"a,b"',
        '"env:"',
        '"-x"',
        '"a b"',
        '"..."',
    ],
)
def test_what_is_no_host_is_told_with_its_line(tmp_path: Path, host: str) -> None:
    with pytest.raises(Problems) as caught:
        load(set_with(tmp_path, host))
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (7, "connectors.vault.settings.login.host")
    assert problem.message.startswith("must be a host's name")
