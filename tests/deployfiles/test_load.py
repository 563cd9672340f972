import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from broker.deployfiles import listing, load
from broker.errors import Denied
from broker.files import Problems
from broker.identity.agent import Quotas, Tier
from broker.identity.spiffe_id import SpiffeId
from broker.scope.canonical import canonical_json
from broker.scope.model import AccessClass
from tests.deployfiles.test_broken import HERE, private_copy


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return private_copy(HERE / "good", tmp_path / "set")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refusals(directory: Path) -> list[str]:
    with pytest.raises(Problems) as caught:
        load(directory)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


@pytest.mark.parametrize("folder", ["", "agents", "policies"])
def test_a_folder_that_cannot_be_listed(good: Path, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by whom its mode keeps out, or while it is being replaced: a problem, and no defect of the reader."""
    listed = Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == good / folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    told = f"{folder or good}:1: cannot be read: Permission denied"
    assert [each for each in refusals(good) if "cannot be read" in each] == [told.removeprefix(f"{good}/")]


@pytest.mark.parametrize("name", [b"\xff.yaml", b"a\n.yaml", "\u202eb.yaml".encode(), b"\x1b[2J.yaml"])
@pytest.mark.parametrize("folder", ["", "agents/", "shadow_policies/"])
def test_a_name_that_nobody_can_read(good: Path, folder: str, name: bytes) -> None:
    """It would be in the digest, in problems and in the trail; bytes that are no UTF-8 ended the reader."""
    (good / "shadow_policies").mkdir(mode=0o755)
    shutil.copy(good / "agents/analyst.yaml", os.fsencode(good / folder) + b"/" + name)
    told = f"{folder}{ascii(os.fsdecode(name))[1:-1]}:1: has characters in its name that cannot be shown"
    assert [each.partition(" (")[0] for each in refusals(good) if "its name" in each] == [told]
    assert listing.read_set(good).digest()


def test_agents(good: Path) -> None:
    registry = load(good).registry
    agent = registry.find(SpiffeId.parse("spiffe://example.org/agent/analyst"))
    assert (agent.tier, agent.environments, agent.roles) == (Tier.ADVISORY, {"dev"}, frozenset())
    assert agent.owner == load(good).people["dana"]
    assert agent.quotas == Quotas(live_leases=20, open_tasks=10)
    with pytest.raises(Denied):
        registry.find(SpiffeId.parse("spiffe://example.org/agent/other"))


def test_templates(good: Path) -> None:
    template = load(good).templates["reports"]
    assert (template.connector, template.access) == ("aws", AccessClass.READ)
    assert (template.accounts, template.environments) == ({"123456789012"}, {"dev"})
    assert template.max_ttl == timedelta(minutes=15)
    assert template.mandatory == {"intent"}
    assert template.resource.parse("reports") == "reports"
    assert template.parameters["day"].parse("2026-11") == "2026-11"
    # The shorthand is written out, so a connector has one form to read.
    assert template.grant["policy"][0]["resources"] == [  # type: ignore[index,call-overload]
        [{"text": "arn:aws:s3:::"}, {"resource": True}, {"text": "/"}, {"parameter": "day"}, {"text": "/*"}]
    ]


def test_connectors(good: Path) -> None:
    connectors = load(good).connectors
    assert {name: spec.kind for name, spec in connectors.items()} == {"vault": "vault-database", "aws": "aws-sts"}
    settings = connectors["vault"].settings
    assert (settings["mount"], settings["token_role"]) == ("database", "jit-attempt")  # defaults are filled in
    assert settings["token"] == "file:/run/broker/vault.token"
    assert canonical_json(dict(connectors["aws"].settings))  # it can be digested


def test_the_order_of_shorthand_and_long_form_has_one_digest(good: Path) -> None:
    before = load(good).templates["reports"].digest
    edit(good / "templates/reports.yaml", '"arn:aws:s3:::",', '{text: "arn:aws:s3:::"},')
    edit(good / "templates/reports.yaml", "max_ttl: 15m", "max_ttl: 900s")
    assert load(good).templates["reports"].digest == before
    edit(good / "templates/reports.yaml", "max_ttl: 900s", "max_ttl: 901s")
    assert load(good).templates["reports"].digest != before


def test_every_name_and_byte_is_in_the_digest(good: Path) -> None:
    def spaced(path: Path) -> None:
        path.write_text(path.read_text() + "\n")

    seen = {load(good).digest}
    changes: list[Callable[[], object]] = [
        lambda: spaced(good / "people.yaml"),
        lambda: spaced(good / "policies/read.cedar"),
        lambda: (good / "agents/analyst.yaml").rename(good / "agents/renamed.yaml"),
    ]
    for change in changes:
        change()
        digest = load(good).digest
        assert digest not in seen
        seen.add(digest)
    assert load(good).digest == digest


def test_no_digest_tells_where_the_set_lies(good: Path, tmp_path: Path) -> None:
    here, there = load(good), load(private_copy(HERE / "good", tmp_path / "elsewhere"))
    assert here.digest == there.digest
    assert here.policies.digest == there.policies.digest
    assert {t.digest for t in here.templates.values()} == {t.digest for t in there.templates.values()}


def test_what_nobody_reads_changes_nothing(good: Path) -> None:
    before = load(good).digest
    (good / "README.md").write_text("What this is.")
    (good / "agents/.analyst.yaml.swp").write_bytes(b"\xff")
    (good / "agents/analyst.yaml~").write_text("old")
    assert load(good).digest == before


@pytest.mark.parametrize(
    ("name", "mode", "who"),
    [
        ("agents/analyst.yaml", 0o664, "its group (mode 0664)"),
        ("policies/read.cedar", 0o646, "the world (mode 0646)"),
        ("people.yaml", 0o666, "the world (mode 0666)"),
        ("templates", 0o775, "its group (mode 0775)"),
        (".", 0o777, "the world (mode 0777)"),
    ],
)
def test_what_others_may_write_is_refused_with_the_command_to_run(good: Path, name: str, mode: int, who: str) -> None:
    path = good / name
    path.chmod(mode)
    with pytest.raises(Problems) as caught:
        load(good)
    (problem,) = (p for p in caught.value.problems if "writable" in p.message)
    assert (problem.file, problem.line, problem.message) == (str(path), 1, f"is writable by {who}")
    assert problem.hint == f"run: chmod go-w {path}"
    path.chmod(mode & ~0o022)
    assert load(good)


def test_a_file_that_is_a_link_is_refused(good: Path, tmp_path: Path) -> None:
    # It could be swapped alone, and the set be half old, half new.
    outside = tmp_path / "elsewhere.yaml"
    (good / "agents/analyst.yaml").rename(outside)
    (good / "agents/analyst.yaml").symlink_to(outside)
    assert refusals(good)[0].startswith("agents/analyst.yaml:1: is a symbolic link")


def test_a_folder_that_is_a_link_is_refused(good: Path, tmp_path: Path) -> None:
    (good / "agents").rename(tmp_path / "agents")
    (good / "agents").symlink_to(tmp_path / "agents")
    assert refusals(good)[0].startswith("agents:1: is a symbolic link")


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Problems, match="No such file"):
        load(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    assert [refusal.partition(":")[0] for refusal in refusals(empty)] == [
        "agents",
        "connectors.yaml",
        "people.yaml",
        "policies",
        "templates",
    ]


def test_everything_wrong_in_the_whole_set_is_told_at_once(good: Path) -> None:
    edit(good / "agents/analyst.yaml", "owner: dana", "owner: mallory")
    edit(good / "templates/orders.yaml", "max_ttl: 15m", "max_ttl: 0s")
    edit(good / "templates/reports.yaml", "connector: aws", "connector: gcp")
    edit(good / "policies/read.cedar", '@id("read")', "")
    (good / "people.yaml").chmod(0o644)
    assert [refusal.split(": ")[0] for refusal in refusals(good)] == [
        "agents/analyst.yaml:3",
        "policies/read.cedar:2",
        "templates/orders.yaml:9",
        "templates/reports.yaml:3",
    ]


@pytest.mark.parametrize("broken", ["people.yaml", "connectors.yaml"])
def test_one_broken_file_does_not_make_others_look_wrong(good: Path, broken: str) -> None:
    (good / broken).write_text("nonsense: [")
    assert [refusal.split(":")[0] for refusal in refusals(good)] == [broken]


def test_a_link_to_the_set_is_resolved_once(good: Path, tmp_path: Path) -> None:
    link = tmp_path / "live"
    link.symlink_to(good)
    assert load(link).digest == load(good).digest
    shutil.rmtree(good)
    with pytest.raises(Problems, match="No such file"):
        load(link)
