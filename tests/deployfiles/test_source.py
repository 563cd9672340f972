from pathlib import Path

import pytest

from broker.deployfiles import DeployFiles
from broker.files import Problems
from tests.deployfiles.test_broken import HERE, private_copy


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A link to a good set, as operators who deploy by swapping have it."""
    private_copy(HERE / "good", tmp_path / "one")
    link = tmp_path / "live"
    link.symlink_to("one")
    return link


def swap(live: Path, target: Path) -> None:
    fresh = live.with_suffix(".new")
    fresh.symlink_to(target)
    fresh.rename(live)  # atomic: rename(2) replaces the link


def other_set(path: Path, description: str = "Reads other things.") -> Path:
    private_copy(HERE / "good", path)
    agent = path / "agents/analyst.yaml"
    agent.write_text(agent.read_text().replace("Reads orders.", description))
    return path


def test_a_bad_set_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Problems):
        DeployFiles(private_copy(HERE / "broken/unknown-owner", tmp_path / "set"))


def test_a_set_is_in_force_only_once_adopted(live: Path, tmp_path: Path) -> None:
    files = DeployFiles(live)
    first = files.current
    swap(live, other_set(tmp_path / "two"))
    candidate = files.load()
    assert candidate.digest != first.digest
    assert files.current is first
    files.adopt(candidate)
    assert files.current is candidate


def test_a_bad_set_leaves_the_last_good_one_in_force(live: Path, tmp_path: Path) -> None:
    files = DeployFiles(live)
    first = files.current
    swap(live, private_copy(HERE / "broken/policy-syntax", tmp_path / "bad"))
    with pytest.raises(Problems) as caught:
        files.load()
    assert caught.value.problems[0].file == str(live / "policies/read.cedar")
    assert files.current is first
    assert first.templates.keys() == {"orders", "reports"}


def test_a_swap_is_seen_once(live: Path, tmp_path: Path) -> None:
    files = DeployFiles(live)
    assert not files.swapped()
    swap(live, other_set(tmp_path / "two"))
    assert files.swapped()
    assert files.swapped()  # looking changes nothing
    files.load()
    assert not files.swapped()


def test_a_swap_to_a_bad_set_is_looked_at_once(live: Path, tmp_path: Path) -> None:
    files = DeployFiles(live)
    swap(live, private_copy(HERE / "broken/zero-ttl", tmp_path / "bad"))
    assert files.swapped()
    with pytest.raises(Problems):
        files.load()
    assert not files.swapped()
    swap(live, tmp_path / "one")
    assert files.swapped()


def test_a_swap_to_what_cannot_even_be_read_is_looked_at_once(live: Path, tmp_path: Path) -> None:
    """Each look at a refused set is a record in the trail, and the directory is looked at every second."""
    files = DeployFiles(live)
    group_writable = other_set(tmp_path / "two")
    group_writable.chmod(0o775)
    volume = config_map(tmp_path / "volume")
    for bad in (group_writable, volume):
        swap(live, bad)
        assert files.swapped()
        with pytest.raises(Problems):
            files.load()
        assert not files.swapped()
    swap(live, tmp_path / "one")
    assert files.swapped()


def test_a_directory_replaced_under_its_own_name_is_a_swap(tmp_path: Path) -> None:
    directory = private_copy(HERE / "good", tmp_path / "set")
    files = DeployFiles(directory)
    other_set(tmp_path / "next")
    directory.rename(tmp_path / "previous")
    assert not files.swapped()  # nothing has the name: nothing to look at yet
    (tmp_path / "next").rename(directory)
    assert files.swapped()
    assert files.load().digest != files.current.digest


def config_map(volume: Path) -> Path:
    """A set as the kubelet mounts it: links in a directory open to all, to what is behind a link that it swaps."""
    volume.mkdir()
    private_copy(HERE / "good", volume / "..2026_01")
    (volume / "..data").symlink_to("..2026_01")
    for part in (volume / "..2026_01").iterdir():
        (volume / part.name).symlink_to(f"..data/{part.name}")
    volume.chmod(0o755)
    return volume


def test_a_config_map_changes_as_one(tmp_path: Path) -> None:
    volume = config_map(tmp_path / "volume")
    volume.chmod(0o777)  # as it really is: who may write there is the mount's to say
    files = DeployFiles(volume / "..data")
    other_set(volume / "..2026_02")
    swap(volume / "..data", volume / "..2026_02")
    assert files.swapped()
    assert files.load().digest != files.current.digest


def test_the_outside_of_a_config_map_is_refused_by_what_to_name(tmp_path: Path) -> None:
    volume = config_map(tmp_path / "volume")
    with pytest.raises(Problems) as caught:
        DeployFiles(volume)
    (problem,) = caught.value.problems
    assert str(volume / "..data") in problem.hint


def test_an_edit_in_place_is_not_live_until_somebody_says_so(live: Path) -> None:
    files = DeployFiles(live)
    agent = live / "agents/analyst.yaml"
    agent.write_text("half a fi")
    assert not files.swapped()
    assert len(files.current.registry) == 1
