import os
from pathlib import Path

import pytest

from broker.errors import InvalidInput, Reason
from broker.files import Problem, Problems, check_directory, read_text


def refusal(path: Path, **how: bool) -> str:
    with pytest.raises(Problems) as caught:
        read_text(path, "shown.yaml", **how)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line) == ("shown.yaml", 1)
    return f"{problem.message} {problem.hint}".strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text("a: ü\n")
    path.chmod(0o640)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o644, 0o755])
def test_a_file_that_only_its_owner_writes_is_read(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert read_text(file, "shown.yaml") == "a: ü\n"


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        (0o620, "is writable by its group (mode 0620)"),
        (0o602, "is writable by the world (mode 0602)"),
        (0o666, "is writable by the world (mode 0666)"),
    ],
)
def test_a_file_that_others_write_is_refused_with_the_command_to_run(file: Path, mode: int, told: str) -> None:
    file.chmod(mode)
    assert refusal(file) == f"{told} run: chmod go-w {file}"
    file.chmod(0o600)
    assert read_text(file, "shown.yaml")


def test_what_is_no_readable_text_is_refused(file: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent") == "cannot be read: No such file or directory"
    assert refusal(tmp_path) in ("cannot be read: Is a directory", "is not a regular file")
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") == "is not a regular file"
    file.write_bytes(b"x" * (256 * 1024 + 1))
    assert refusal(file) == "is larger than 256 KiB"


def test_the_line_of_a_byte_that_is_no_text_is_told(file: Path) -> None:
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(Problems) as caught:
        read_text(file, "f")
    assert caught.value.problems == (Problem("f", 2, "", "is not UTF-8"),)


def test_a_link_is_followed_only_where_that_is_said(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    assert read_text(link, "shown.yaml") == "a: ü\n"
    assert refusal(link, follow=False).startswith("is a symbolic link")


def test_a_directory_that_others_write_is_refused(tmp_path: Path, file: Path) -> None:
    tmp_path.chmod(0o700)
    check_directory(tmp_path, "d")
    for path, mode in ((tmp_path, 0o770), (tmp_path, 0o1777), (file, 0o600), (tmp_path / "absent", None)):
        if mode is not None:
            path.chmod(mode)
        with pytest.raises(Problems):
            check_directory(path, "d")
    tmp_path.chmod(0o700)


def test_problems_are_one_error_with_all_of_them_in_order() -> None:
    late, early = Problem("b", 1, "x.y", "is wrong", "Right it."), Problem("a", 9, "", "is odd")
    error = Problems([late, early, late])
    assert isinstance(error, InvalidInput)
    assert error.reason is Reason.CONFIG_INVALID
    assert error.problems == (early, late)
    assert error.message.splitlines()[1:] == ["a:9: is odd", "b:1: x.y: is wrong (Right it.)"]
    assert error.metadata == {"problems": "2", "first": "a:9: is odd"}
    with pytest.raises(ValueError, match="without"):
        Problems([])
