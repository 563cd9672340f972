import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.files import Problems, parse_yaml


def problems(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(Problems) as caught:
        parse_yaml("f.yaml", text)
    assert {problem.file for problem in caught.value.problems} == {"f.yaml"}
    return [(problem.line, problem.field, problem.message) for problem in caught.value.problems]


def test_plain_yaml_means_what_it_says() -> None:
    text = """\
# a comment
text: plain words
quoted: "yes"
number: 42
negative: -1
flag: true
nothing:
list: [a, 'b', {c: d}]
block: |
  two
  lines
address: 127.0.0.1:80
network: 10.0.0.0/8
version: v1.2
"""
    assert parse_yaml("f", text).data == {
        "text": "plain words",
        "quoted": "yes",
        "number": 42,
        "negative": -1,
        "flag": True,
        "nothing": None,
        "list": ["a", "b", {"c": "d"}],
        "block": "two\nlines\n",
        "address": "127.0.0.1:80",
        "network": "10.0.0.0/8",
        "version": "v1.2",
    }


def test_every_key_and_value_knows_its_line() -> None:
    document = parse_yaml("f", "a:\n  b:\n    - x\n    - c: z\n\nd: {e: 1}\n")
    assert document.line(()) == 1
    assert document.line(("a",)) == 1
    assert document.line(("a", "b")) == 2
    assert document.line(("a", "b", 0)) == 3
    assert document.line(("a", "b", 1, "c")) == 4
    assert document.line(("d", "e")) == 6
    assert document.places["d", "e"].column == 8
    # What is not there has the place of what is around it; a validator's own words are passed over.
    assert document.line(("a", "missing")) == 1
    assert document.known(("a", "SomeUnionMember", "b", 1, "nope")) == ("a", "b", 1)


@pytest.mark.parametrize(
    ("text", "line", "field", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a", "comes twice"),
        ("a:\n  - b: 1\n    b: 2\n", 3, "a.0.b", "comes twice"),
        ("a: &x 1\n", 1, "a", "anchor &x"),
        ("a: [*x]\n", 1, "a.0", "alias *x"),
        ("a:\n  <<: {b: 1}\n", 2, "a", "merge key"),
        ("a: !!str 1\n", 1, "a", "has the tag"),
        ("a: !custom {b: 1}\n", 1, "a", "has the tag !custom"),
        ("!!map {a: 1}\n", 1, "", "has the tag"),
        ("%YAML 1.1\n---\na: 1\n", 1, "", "directive"),
        ("a: 1\n---\nb: 2\n", 2, "", "second document"),
        ("1: a\n", 1, "", "has the key 1"),
        ("true: a\n", 1, "", "has the key true"),
        ("? [a]\n: b\n", 1, "", "a key that is not a text"),
        ("? &x a\n: b\n", 1, "", "a key with an anchor"),
        ("a: [1, 2\nb: 3\n", 2, "", "is not YAML"),
        ("a:\n\tb: 1\n", 2, "", "is not YAML"),
        ("a: b\0c\n", 1, "", "does not allow"),
        ("", 1, "", "is empty"),
        ("# nothing\n", 1, "", "is empty"),
        ("[" * 30 + "]" * 30, 1, ".".join(["0"] * 24), "deeper than 24"),
        *[(f"a: {word}\n", 1, "a", word) for word in ("yes", "No", "on", "OFF", "y", "N", "True", "FALSE", "Null")],
        *[(f"a: {word}\n", 1, "a", word) for word in ("1.5", ".5", "1.", "1e3", "-1.0E-3", ".inf", "-.Inf", ".NaN")],
        *[(f"a: {word}\n", 1, "a", word) for word in ("0x1F", "0o17", "017", "0b1", "1_000", "+1", "190:20:30")],
        *[(f"a: {word}\n", 1, "a", word) for word in ("2026-01-02", "2026-01-02 03:04:05", "12345678901234567890")],
    ],
)
def test_what_has_two_meanings_is_refused_where_it_stands(text: str, line: int, field: str, told: str) -> None:
    assert any((at, where) == (line, field) and told in message for at, where, message in problems(text))


def test_all_problems_are_told_at_once() -> None:
    assert [line for line, _, _ in problems("a: yes\nb: 1.5\nb: 2\nc: *x\n")] == [1, 2, 3, 4]


_KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
_VALUES = st.recursive(
    st.text(max_size=12) | st.booleans() | st.integers(-(10**12), 10**12) | st.none(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(_KEYS, children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(_VALUES)
def test_what_the_library_writes_comes_back_as_it_was_or_not_at_all(value: object) -> None:
    # It writes y and 08 without quotes, which others read as a boolean and a number: those we refuse.
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    try:
        assert parse_yaml("f", yaml.dump(value, Dumper=Dumper)).data == value
    except Problems as error:
        told = {problem.message.partition(", which")[2] for problem in error.problems}
        assert told <= {" YAML 1.1 and 1.2 read differently", " is no plain whole number", " is not a text"}


@settings(deadline=None)
@given(st.text(st.sampled_from("ab:-?&*!|>'\"%#{}[],\n \t1.~<"), max_size=30))
def test_any_text_is_a_document_or_a_list_of_problems(text: str) -> None:
    try:
        parse_yaml("f", text)
    except Problems as error:
        assert all(1 <= problem.line <= text.count("\n") + 1 for problem in error.problems)
