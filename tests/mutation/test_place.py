"""What mutmut is told is what it reads, and speaks of files that are there."""

from __future__ import annotations

import io
import re
from configparser import ConfigParser

import pytest

from tests.mutation.place import DONE, ROOT, TESTS, configuration, session


def read_as_mutmut_does(room: str) -> dict[str, list[str]]:
    """Lists are lines, and what stands at the ends of a line is lost."""
    written = io.StringIO()
    configuration(room).write(written)
    reader = ConfigParser()
    reader.read_string(written.getvalue())
    return {name: [each for each in value.split("\n") if each] for name, value in reader["mutmut"].items()}


@pytest.mark.parametrize("room", TESTS)
def test_the_room_and_its_tests_are_there(room: str) -> None:
    told = read_as_mutmut_does(room)
    (pattern,) = told["only_mutate"]
    assert list(ROOT.glob(pattern))
    assert all((ROOT / each).exists() for each in told["also_copy"])
    assert all((ROOT / "tests" / each).exists() for each in TESTS[room])
    assert [f"tests/{each}" for each in TESTS[room]] == session(room)[-len(TESTS[room]) :]
    assert "not slow" in session(room)


@pytest.mark.parametrize(
    ("line", "mutated"),
    [
        ("    if given != actual:", True),
        ('            f"access request {request_id} {told}.",', False),
        ('            hint="Look at it again, and decide on what is shown now.",', False),
        ('            "tenant": self.tenant,', True),
        ('            metadata={"accessRequestId": access_request_id},', True),
        ("        raise Conflict(", False),
        ("    raised = 1", True),
        ('        _refuse(trust_domain, "is given twice")', False),
        ('        refuse(Reason.ID_TOKEN_KEY_UNKNOWN, "does not name its key", "The header kid names it.")', False),
        ("            refuse(", True),
        ("            self._refuse(peer.spiffe_id, self._of_id(peer.spiffe_id, now))", True),
        ('        wrong = "has no key usage"', False),
        ('    whole = "a b"', True),
    ],
)
def test_only_words_are_left_alone(line: str, mutated: bool) -> None:
    patterns = read_as_mutmut_does("lease")["do_not_mutate_patterns"]
    assert (not any(re.search(each, line) for each in patterns)) is mutated


def test_a_room_that_is_done_is_one_with_a_table_and_its_figures() -> None:
    assert set(DONE) <= set(TESTS)
    page = (ROOT / "docs" / "mutation.md").read_text()
    for room in TESTS:
        assert f"| `{room}` " in page, room
        assert (f"| `{room}` | not yet" in page) is (room not in DONE), room
