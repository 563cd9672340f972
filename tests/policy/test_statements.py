import pytest

from broker.policy.statements import Statement, named_line, statements, syntax_line

TEXT = """\
// a comment; with a semicolon

@id("a;b") // and another;
permit (principal, action, resource);
  // between
@reason("he said \\"no;\\"")
forbid (principal, action, resource)
when { "x" == "//;" };
// the end
"""


def test_a_text_is_cut_at_its_own_semicolons_only() -> None:
    first, second = statements("f", TEXT)
    assert (first.line, first.text) == (3, '@id("a;b") // and another;\npermit (principal, action, resource);')
    assert second.line == 6
    assert second.text.startswith("@reason")
    assert second.text.endswith('"//;" };')


@pytest.mark.parametrize("text", ["", "\n\n", "// only; a comment", " \t// one\n// two"])
def test_where_nothing_is_written_there_is_no_statement(text: str) -> None:
    assert list(statements("f", text)) == []


@pytest.mark.parametrize("text", ["permit (principal", 'permit "never closed;\nforbid;', ";", "@", '"'])
def test_nothing_that_is_written_is_dropped(text: str) -> None:
    found = list(statements("f", "\n" + text + "\n"))
    assert "".join("".join(statement.text for statement in found).split()) == "".join(text.split())
    assert found[0].line == 2


def test_a_syntax_error_is_placed_by_what_no_continuation_could_save() -> None:
    tried = []

    def complaint(text: str) -> str | None:
        tried.append(text)
        return "unexpected token `b`" if "b" in text else "unexpected end of input"

    assert syntax_line(Statement("f", 10, "a\na\nb\nc"), "unexpected token `b`", complaint) == 12  # 10 + 2
    assert tried == ["a\na\n", "a\na\nb\n"]
    assert syntax_line(Statement("f", 10, "b\nc"), "unexpected token `b`", complaint) == 10
    assert syntax_line(Statement("f", 10, "a\na"), "unexpected end of input", complaint) == 11
    assert syntax_line(Statement("f", 10, "a"), "unexpected end of input", complaint) == 10


def test_in_a_long_list_it_is_found_in_a_few_tries() -> None:
    """A comma was forgotten between two of thousands of names: brokerd stands still while that is looked for."""
    tried = 0

    def complaint(text: str) -> str | None:
        nonlocal tried
        tried += 1
        return "unexpected token `b`" if "b" in text else "unexpected end of input"

    for wrong in (0, 1, 4_000, 7_998, 7_999):
        text = "\n".join("b" if number == wrong else "a" for number in range(8_000))
        assert syntax_line(Statement("f", 10, text), "unexpected token `b`", complaint) == 10 + wrong
    assert tried <= 5 * 13


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("attribute `colour` on entity type `Agent` not found", 12),
        ("'=' is not a valid operator in Cedar", 13),  # not the == above
        ("invalid policy condition: whn", 11),
        ("attribute `col` not found", 10),  # no such word: the statement itself
        ("something else", 10),
    ],
)
def test_what_a_message_names_is_looked_up(message: str, line: int) -> None:
    text = 'permit (principal, action == Action::"read", resource)\nwhn {\n principal.colour\n = 3 };'
    assert named_line(Statement("f", 10, text), message) == line
