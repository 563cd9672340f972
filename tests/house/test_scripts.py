"""The scripts of `.ci/`: which Python is taken, and what the wire is compared with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.project import ROOT

CI = ROOT / ".ci"
BUF = Path(sys.executable).parent / "buf"
BUF_YAML = "version: v2\nmodules:\n  - path: protos\nbreaking:\n  use: [FILE]\n"
PROTO = 'syntax = "proto3";\npackage p.v1;\nmessage M {{\n  {field}\n}}\n'


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    return subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


# --------------------------------------------------------------------------- which Python


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_first_python_that_works_is_taken(tmp_path: Path) -> None:
    # A shim that is there and only complains, as pyenv leaves them.
    shim = script(tmp_path / "shim", "echo 'command not found' >&2; exit 127")
    done = run(CI / "python", "no-such-python", shim, sys.executable, "python3")
    assert (done.returncode, done.stdout.strip()) == (0, sys.executable)


def test_no_python_is_said_with_what_was_tried(tmp_path: Path) -> None:
    done = run(CI / "python", "no-such-python", script(tmp_path / "old", "exit 1"))
    assert done.returncode == 1
    assert "No Python 3.11 or newer found" in done.stderr and "no-such-python" in done.stderr


def test_a_python_without_venv_is_said_with_the_package_to_install(tmp_path: Path) -> None:
    # Debian's python3 without python3-venv: runs, and has no ensurepip.
    halved = script(tmp_path / "python3", "[[ $2 == *ensurepip* ]] && exit 1; exit 0")
    done = run(CI / "python", halved)
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


# --------------------------------------------------------------------------- what the wire is compared with


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    return tmp_path


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = run("git", *identity, *arguments, cwd=repository)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(repository: Path, field: str) -> None:
    (repository / "buf.yaml").write_text(BUF_YAML)
    proto = repository / "protos" / "p" / "v1" / "p.proto"
    proto.parent.mkdir(parents=True, exist_ok=True)
    proto.write_text(PROTO.format(field=field))


def commit(repository: Path, field: str) -> str:
    write(repository, field)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=x")
    return git(repository, "rev-parse", "HEAD")[:12]


def breaking(repository: Path) -> subprocess.CompletedProcess[str]:
    return run(CI / "breaking", BUF, cwd=repository)


def assert_nothing(done: subprocess.CompletedProcess[str], why: str) -> None:
    assert done.returncode == 0
    assert "compared against NOTHING" in done.stdout and why in done.stdout


def test_outside_git_nothing_is_compared_and_it_says_so(tmp_path: Path) -> None:
    assert_nothing(breaking(tmp_path), "not a git checkout")


def test_before_the_first_commit(repository: Path) -> None:
    write(repository, "string a = 1;")
    assert_nothing(breaking(repository), "nothing was committed yet")


def test_the_first_commit_and_a_shallow_clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    commit(repository, "string a = 1;")
    assert_nothing(breaking(repository), "no earlier commit")
    commit(repository, "int32 a = 1;")
    clone = tmp_path_factory.mktemp("clone") / "shallow"
    git(repository, "clone", "--quiet", "--depth=1", f"file://{repository}", str(clone))
    assert_nothing(breaking(clone), "shallow clone")


def test_an_earlier_commit_without_protos(repository: Path) -> None:
    (repository / "README").write_text("x")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message=x")
    commit(repository, "string a = 1;")
    assert_nothing(breaking(repository), "has no protos/")


def test_on_main_the_last_commit_is_compared_with_the_one_before(repository: Path) -> None:
    before = commit(repository, "string a = 1;")
    commit(repository, "string a = 1;\n  string b = 2;")
    done = breaking(repository)
    assert (done.returncode, done.stdout.strip()) == (0, f"buf breaking: compatible with commit {before}")
    commit(repository, "string a = 1;")
    done = breaking(repository)
    assert done.returncode != 0
    assert 'Previously present field "2"' in done.stdout


def test_changes_that_are_not_committed_are_compared_with_the_last_commit(repository: Path) -> None:
    commit(repository, "string a = 1;")
    commit(repository, "string a = 1;\n  string b = 2;")
    write(repository, "string a = 1;")
    assert breaking(repository).returncode != 0


def test_a_branch_is_compared_with_where_it_left_main(repository: Path) -> None:
    left = commit(repository, "string a = 1;")
    git(repository, "switch", "--quiet", "--create", "topic")
    commit(repository, "string a = 1;\n  string b = 2;")
    # b never landed, so that it goes again breaks nobody.
    commit(repository, "string a = 1;")
    done = breaking(repository)
    assert (done.returncode, done.stdout.strip()) == (0, f"buf breaking: compatible with commit {left}")
    commit(repository, "int32 a = 1;")
    assert breaking(repository).returncode != 0


def test_the_tools_that_the_scripts_need_are_here() -> None:
    assert BUF.exists() and shutil.which("git")
