import json
from datetime import timedelta
from typing import Annotated, Literal

import pytest
from pydantic import Field

from broker.files import Duration, Model, Problems, Reference, parse_yaml, validated


class Cat(Model):
    kind: Literal["cat"]
    lives: int


class Dog(Model):
    kind: Literal["dog"]
    name: str


class House(Model):
    ttl: Duration = timedelta(seconds=1)
    key: Reference = "env:KEY"
    open: bool = True
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []  # noqa: RUF012 - pydantic copies it


def complaints(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(Problems) as caught:
        validated(House, parse_yaml("f", text))
    return [(problem.line, problem.field, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("1h", timedelta(hours=1)),
        ("2d", timedelta(days=2)),
        ("999999d", timedelta(days=999999)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert validated(House, parse_yaml("f", f"ttl: {text}")).ttl == duration


@pytest.mark.parametrize(
    "text",
    [
        "0s",
        "00s",
        "-1s",
        "+1s",
        "01s",
        "1",
        '"1"',
        "1 s",
        "1S",
        "1.5h",
        "1h30m",
        "PT1H",
        "s",
        '""',
        "null",
        "[1s]",
        "１s",
        "1000000s",
    ],
)
def test_what_is_no_positive_duration(text: str) -> None:
    ((line, field, message),) = complaints(f"\nttl: {text}\n".replace("null", '"null"').replace("1.5h", '"1.5h"'))
    assert (line, field) == (2, "ttl")
    assert "like 30s, 15m or 1h" in message


@pytest.mark.parametrize("text", ["file:/run/key", "file:key", "env:KEY", "env:_k9"])
def test_references(text: str) -> None:
    assert validated(House, parse_yaml("f", f'key: "{text}"')).key == text


@pytest.mark.parametrize("text", ["hunter2", "file:", "env:", "env:9", "env:A-B", "FILE:x", "kms:x", "file:a\\nb"])
def test_a_secret_in_place_of_a_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Problems) as caught:
        validated(House, parse_yaml("f", f'key: "{text}"'))
    assert "must be a reference" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_every_complaint_stands_at_its_line() -> None:
    text = """\
ttl: 5x
opne: true
open: "true"
pets:
  - {kind: cat, lives: "9"}
  - kind: cow
  - kind: dog
    nmae: Rex
  - lives: 9
"""
    assert complaints(text) == [
        (1, "ttl", "must be a duration like 30s, 15m or 1h (ms, s, m, h, d), and more than zero"),
        (2, "opne", "is not a known key"),
        (3, "open", "must be a valid boolean"),
        (5, "pets.0.lives", "must be a valid integer"),
        (6, "pets.1.kind", "is cow"),
        (7, "pets.2.name", "is missing"),
        (8, "pets.2.nmae", "is not a known key"),
        (9, "pets.3.kind", "is missing"),
    ]


def test_the_file_itself_may_have_the_wrong_shape() -> None:
    ((line, field, _),) = complaints("- a\n")
    assert (line, field) == (1, "")
    ((_, _, message),) = complaints("null")
    assert message == "is empty"


class Fence(Model):
    tools: tuple[str, ...] | None = None
    bound_on_revoke: Duration | None = timedelta(seconds=1)
    inner: House | None = None


def test_a_key_without_a_value_is_refused_also_where_it_may_be_left_out() -> None:
    # "tools:" with each of its items commented out must not come to "any tool".
    with pytest.raises(Problems) as caught:
        validated(Fence, parse_yaml("f", "tools:\ninner:\n  open: true\n  pets: []\nbound_on_revoke: null\n"))
    (problem,) = caught.value.problems
    assert (problem.line, problem.field, problem.message) == (1, "tools", "is empty")
    assert problem.hint == "Say something, or leave the key out."
    assert validated(Fence, parse_yaml("f", "bound_on_revoke: null")).bound_on_revoke is None  # a value of its own


def test_only_what_is_asked_for_is_looked_at() -> None:
    document = parse_yaml("f", "tools:\ninner: {open: true}\n")
    assert validated(House, document, at=("inner",)).open


@pytest.mark.parametrize("kind", ["cow\nf:1: all is well", "c\u043ew", "cow" * 50])
def test_a_word_of_the_file_is_told_in_one_line_and_not_at_length(kind: str) -> None:
    with pytest.raises(Problems) as caught:
        validated(House, parse_yaml("f", f"pets: [{{kind: {json.dumps(kind)}}}]"))
    told = str(caught.value.problems[0])
    assert told.isascii()
    assert told.isprintable()
    assert len(told) < 160


def test_what_should_stand_there_is_told() -> None:
    with pytest.raises(Problems) as caught:
        validated(House, parse_yaml("f", "pets: cat"))
    assert str(caught.value.problems[0]) == (
        "f:1: pets: must be a list (Write it as [one, other], or one item a line after a dash.)"
    )
