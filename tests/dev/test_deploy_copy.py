"""The private copy of the deploy set: only good ones get the name, whatever the original's modes are."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from broker.deployfiles.load import load
from broker.deployfiles.source import DeployFiles
from broker.dev.deploy_copy import DeployCopy, shipped_set
from broker.errors import InvalidInput
from broker.files import Problems

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A clone's deploy/dev under umask 002."""
    copy = tmp_path / "clone" / "dev"
    shutil.copytree(ROOT / "deploy" / "dev", copy)
    for path in (copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | stat.S_IWGRP)
    return copy


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> DeployCopy:
    return DeployCopy(source, tmp_path / "state" / "deploy", load)


def retitle(source: Path, text: str) -> None:
    path = source / "templates" / "orders-readonly.yaml"
    path.write_text(path.read_text().replace("max_ttl: 15m", f"max_ttl: {text}"))


def sets(copy: DeployCopy) -> int:
    return len(list(copy.current.parent.glob("set-*")))


def test_the_original_is_refused_and_its_copy_is_not(source: Path, copy: DeployCopy) -> None:
    with pytest.raises(Problems, match="writable by its group"):
        load(source)
    taken = copy.refresh()
    assert taken is not None
    assert load(copy.current).digest == taken.digest == load(ROOT / "deploy" / "dev").digest
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in copy.current.resolve().rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert stat.S_IMODE(copy.current.resolve().stat().st_mode) == 0o700


def test_a_good_change_is_swapped_in_and_noticed(source: Path, copy: DeployCopy) -> None:
    first = copy.refresh()
    brokerds = DeployFiles(copy.current)
    assert copy.refresh() is None
    assert not brokerds.swapped()
    retitle(source, "14m")
    second = copy.refresh()
    assert first is not None and second is not None and second.digest != first.digest
    assert brokerds.swapped()
    assert brokerds.load().digest == second.digest
    # The one before is kept, for a reader that is in the middle of it; older ones are not.
    for minutes in range(5, 10):
        retitle(source, "14m")
        path = source / "templates" / "orders-readonly.yaml"
        path.write_text(path.read_text().replace("14m", f"{minutes}m").replace(f"{minutes - 1}m", f"{minutes}m"))
        assert copy.refresh() is not None
    assert sets(copy) == 2


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("templates/orders-readonly.yaml", 14, None),
        ("agents/stray.txt", 1, "what is this"),
        ("policies/tiers.cedar", 1, "permit (principal, action, resource) when { nonsense };"),
        ("people.yaml", 1, "x" * 300_000),
    ],
)
def test_a_bad_change_changes_nothing_and_says_where(
    name: str, line: int, text: str | None, source: Path, copy: DeployCopy
) -> None:
    copy.refresh()
    before = (copy.current.readlink(), sets(copy))
    if text is None:
        retitle(source, "0m")
    else:
        (source / name).write_text(text)
    with pytest.raises(Problems) as found:
        copy.refresh()
    assert (str(source / name), line) in {(each.file, each.line) for each in found.value.problems}
    assert str(copy.current.parent) not in str(found.value)
    assert (copy.current.readlink(), sets(copy)) == before


def test_problems_are_told_by_the_name_the_person_gave(source: Path, tmp_path: Path) -> None:
    retitle(source, "0m")
    copy = DeployCopy(source, tmp_path / "state" / "deploy", load, shown=Path("my-deploy"))
    with pytest.raises(
        Problems, match=r"^1 problem in operators' files:\nmy-deploy/templates/orders-readonly.yaml:14: "
    ):
        copy.refresh()
    assert not copy.current.exists()


def test_what_comes_and_goes_is_not_part_of_it(source: Path, copy: DeployCopy) -> None:
    first = copy.refresh()
    assert first is not None
    for name in (".orders.yaml.swp", "orders.yaml~", ".git"):
        (source / "templates" / name).write_text("half")
    assert copy.refresh() is None


def test_links_and_pipes_are_refused_not_followed(source: Path, copy: DeployCopy, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text("secret: elsewhere")
    (source / "agents" / "linked.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(Problems, match=r"agents/linked.yaml:1: is a symbolic link"):
        copy.refresh()
    (source / "agents" / "linked.yaml").unlink()
    os.mkfifo(source / "agents" / "pipe.yaml")
    with pytest.raises(Problems, match=r"agents/pipe.yaml:1: is not a regular file"):
        copy.refresh()


def test_a_source_that_is_gone_is_a_problem(copy: DeployCopy, source: Path) -> None:
    copy.refresh()
    shutil.rmtree(source)
    with pytest.raises(InvalidInput, match=r"dev:1: cannot be read: No such file or directory"):
        copy.refresh()
    assert load(copy.current)


def test_what_an_earlier_run_left_is_replaced(source: Path, copy: DeployCopy) -> None:
    copy.refresh()
    again = DeployCopy(source, copy.current.parent, load)
    assert again.refresh() is not None
    assert sets(again) == 2


def test_the_set_that_is_shipped_is_deploy_dev() -> None:
    """In a checkout it is the very same directory; a wheel gets what the link shows when it is built."""
    assert shipped_set() == ROOT / "deploy" / "dev"
    link = ROOT / "broker" / "dev" / "deploy"
    assert link.is_symlink() and not link.readlink().is_absolute()
