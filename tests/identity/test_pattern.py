"""Path patterns: what one is, what it matches, and whether two could match one id."""

from __future__ import annotations

from itertools import product

import pytest
import re2
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from broker.errors import Unauthenticated
from broker.identity.pattern import IdPattern, Matching, OneOf, Restriction, Segments, is_segment
from broker.identity.pattern_index import PatternIndex
from broker.identity.pattern_index import example as shared_id
from broker.identity.spiffe_id import SpiffeId

JOBS = "spiffe://example.org/ns/{namespace}/job/{job}"


def matching(expression: str) -> Matching:
    program = re2.compile(expression)
    return Matching(expression, lambda value: program.fullmatch(value) is not None)


def one_of(*values: str) -> OneOf:
    return OneOf(frozenset(values))


def parse(text: str, **restrictions: Restriction) -> IdPattern:
    return IdPattern.parse(text, restrictions)


# --------------------------------------------------------------------------- what a pattern is


def test_a_pattern_names_whole_segments_and_reads_as_it_was_written() -> None:
    pattern = parse(JOBS)
    assert str(pattern) == JOBS
    assert (pattern.trust_domain, pattern.names) == ("example.org", ("namespace", "job"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not start with spiffe://"),
        ("SPIFFE://example.org/ns/{n}", "does not start with spiffe://"),
        ("https://example.org/ns/{n}", "does not start with spiffe://"),
        ("spiffe://example.org", "has no path"),
        ("spiffe://example.org/", "has no path"),
        ("spiffe:///ns/{n}", "trust domain with characters"),
        ("spiffe://Example.org/ns/{n}", "trust domain with characters"),
        ("spiffe://example.org:443/ns/{n}", "trust domain with characters"),
        ("spiffe://{domain}/ns/{n}", "no literal"),
        ("spiffe://*.example.org/ns/{n}", "no literal"),
        ("spiffe://example.org/ns/job", "names no segment"),
        ("spiffe://example.org/{n}", "no literal segment"),
        ("spiffe://example.org/{a}/{b}", "no literal segment"),
        ("spiffe://example.org/ns/*", "wildcard *"),
        ("spiffe://example.org/ns/**", "wildcard **"),
        ("spiffe://example.org/ns/{n}*", "wildcard"),
        ("spiffe://example.org/ns/a?/{n}", "wildcard"),
        ("spiffe://example.org/ns/{n*}", "wildcard"),
        ("spiffe://example.org/ns/team-{n}", "part of the segment"),
        ("spiffe://example.org/ns/{n}-x", "part of the segment"),
        ("spiffe://example.org/ns/{n", "part of the segment"),
        ("spiffe://example.org/ns/n}", "part of the segment"),
        ("spiffe://example.org/ns/{a}{b}", "has the name"),
        ("spiffe://example.org/ns/{}", "has the name"),
        ("spiffe://example.org/ns/{N}", "has the name"),
        ("spiffe://example.org/ns/{1n}", "has the name"),
        ("spiffe://example.org/ns/{n-m}", "has the name"),
        ("spiffe://example.org/ns/{" + "n" * 33 + "}", "has the name"),  # 32 + 1
        ("spiffe://example.org/ns/{n}/", "empty, dotted"),
        ("spiffe://example.org//ns/{n}", "empty, dotted"),
        ("spiffe://example.org/ns/./{n}", "empty, dotted"),
        ("spiffe://example.org/ns/../{n}", "empty, dotted"),
        ("spiffe://example.org/n%73/{n}", "empty, dotted"),
        ("spiffe://example.org/ns/{n}#x", "part of the segment"),
        ("spiffe://example.org/ns x/{n}", "empty, dotted"),
        ("spiffe://example.org/ns\n/{n}", "empty, dotted"),
        ("spiffe://example.org/nś/{n}", "not ASCII"),
        ("spiffe://example.org/{n}/ns/{n}", "names n twice"),
        ("spiffe://example.org/ns/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}", "names 9 segments"),  # 8 + 1
        ("spiffe://example.org/{n}" + "/x" * 32, "has 33 segments"),  # 32 + 1
        ("spiffe://example.org/{n}/" + "x" * 2048, "longer than 2048"),
        ("spiffe://example.org/{n}/" + "x" * 256, "empty, dotted"),  # 255 + 1
    ],
)
def test_what_is_no_pattern_is_refused_by_its_rule(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        IdPattern.parse(text)
    assert told in str(refused.value)


def test_the_largest_patterns_are_taken() -> None:
    assert len(parse("spiffe://example.org/{n}" + "/x" * 31).steps) == 32
    assert len(parse("spiffe://example.org/ns/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}").names) == 8


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "lists 0 values"),
        ([f"v{n}" for n in range(257)], "lists 257 values"),  # 256 + 1
        *[([bad], "no segment") for bad in ("", ".", "..", "a/b", "a b", "%61", "é", "*", "{n}", "a\n", "x" * 256)],
    ],
)
def test_listed_values_are_segments(values: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        one_of(*values)


def test_a_restriction_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="has no segment team to restrict"):
        parse(JOBS, team=one_of("a"))


# --------------------------------------------------------------------------- what it matches


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/ns/payments/job/nightly", (("namespace", "payments"), ("job", "nightly"))),
        ("/ns/ns/job/job", (("namespace", "ns"), ("job", "job"))),
        ("/ns/A.b_c-1/job/0", (("namespace", "A.b_c-1"), ("job", "0"))),
        ("/ns/.../job/x", (("namespace", "..."), ("job", "x"))),  # three dots are no dot segment
        ("/ns/" + "n" * 255 + "/job/x", (("namespace", "n" * 255), ("job", "x"))),
        ("/ns/" + "n" * 256 + "/job/x", None),
        ("/ns/payments/job", None),
        ("/ns/payments/job/a/b", None),
        ("/ns/payments/jobs/a", None),
        ("/NS/payments/job/a", None),
        ("/ns/payments/cron/a", None),
        # No SPIFFE ID is written so; where one came by another way than the parser, it still is nobody's.
        ("/ns//job/a", None),
        ("/ns/../job/a", None),
        ("/ns/a%2fb/job/a", None),
        ("/ns/a'b/job/a", None),
        ("/ns/a\n/job/a", None),
        ("ns/payments/job/a", None),
        ("", None),
    ],
)
def test_each_name_stands_for_one_segment(path: str, named: Segments | None) -> None:
    assert parse(JOBS).match(SpiffeId("example.org", path)) == named
    assert PatternIndex([parse(JOBS)]).find(SpiffeId("example.org", path)) == (None if named is None else (0, named))
    assert parse(JOBS).match(SpiffeId("partner.org", path)) is None
    assert PatternIndex([parse(JOBS)]).find(SpiffeId("partner.org", path)) is None


def test_a_restricted_name_takes_what_it_is_restricted_to() -> None:
    pattern = parse(JOBS, namespace=one_of("payments", "orders"), job=matching("^job-[0-9]+$|^adhoc$"))
    for namespace, job, matches in [
        ("payments", "job-1", True),
        ("orders", "adhoc", True),
        ("Payments", "job-1", False),
        ("payment", "job-1", False),
        ("payments", "job-", False),
        ("payments", "xjob-1", False),
        ("payments", "job-1x", False),
    ]:
        spiffe_id = SpiffeId("example.org", f"/ns/{namespace}/job/{job}")
        assert (pattern.match(spiffe_id) is not None) is matches
        assert (PatternIndex([pattern]).find(spiffe_id) is not None) is matches


_HOSTILE = [
    "..",
    ".",
    "%2e",
    "%2e%2e",
    "a%2fb",
    "'",
    '"',
    "\\",
    "*",
    "?",
    "$",
    "{x}",
    " ",
    "\0",
    "é",
    "ﬀ",
    "a\u202eb",
    "",
]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(max_size=8) | st.sampled_from(_HOSTILE) | st.from_regex(r"[A-Za-z0-9._-]{1,6}"), max_size=6))
@example(["ns", "payments", "job", "nightly"])
@example(["ns", "..", "job", "x"])
def test_nothing_but_plain_segments_passes_through_a_name(parts: list[str]) -> None:
    """Whatever text comes as an id: what is named of it is a plain segment that stands in it as written."""
    text = "spiffe://example.org/" + "/".join(parts)
    try:
        spiffe_id = SpiffeId.parse(text)
    except Unauthenticated:
        # Not even when somebody makes the value without the parser.
        found = parse(JOBS).match(SpiffeId("example.org", "/" + "/".join(parts)))
        assert found is None or all(is_segment(value) for _, value in found)
        return
    found = parse(JOBS).match(spiffe_id)
    if found is None:
        return
    assert [name for name, _ in found] == ["namespace", "job"]
    assert text == f"spiffe://example.org/ns/{found[0][1]}/job/{found[1][1]}"
    for _, value in found:
        assert value.isascii()
        assert value not in (".", "..")
        assert not set(value) & set("/%'\"\\*?${} \t\r\n")


# --------------------------------------------------------------------------- two patterns, one id


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (parse(JOBS), parse(JOBS), "/ns/x/job/x"),
        (parse(JOBS), parse("spiffe://example.org/ns/payments/{kind}/{name}"), "/ns/payments/job/x"),
        (
            parse(JOBS, namespace=one_of("a", "b")),
            parse("spiffe://example.org/ns/{n}/job/{j}", n=one_of("b", "c")),
            "/ns/b/job/x",
        ),
        (parse(JOBS, namespace=one_of("a", "t-1")), parse(JOBS, namespace=matching("^t-[0-9]$")), "/ns/t-1/job/x"),
        (parse(JOBS, namespace=matching("^(team|crew)-[a-z]{2,8}$")), parse(JOBS), "/ns/team-aa/job/x"),
    ],
)
def test_patterns_that_overlap_are_told_with_an_id_that_both_match(
    one: IdPattern, other: IdPattern, shared: str
) -> None:
    index = PatternIndex([one, other])
    assert list(index.overlaps()) == [(0, 1)]
    told = shared_id(one, other)
    assert told == SpiffeId("example.org", shared)
    assert index.find(told) is None  # and nobody gets either


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (parse(JOBS), parse("spiffe://partner.org/ns/{namespace}/job/{job}")),
        (parse(JOBS), parse("spiffe://example.org/ns/{namespace}/job/{job}/{run}")),
        (parse(JOBS), parse("spiffe://example.org/ns/{namespace}/cron/{job}")),
        (parse(JOBS, namespace=one_of("a", "b")), parse(JOBS, namespace=one_of("c"))),
        (parse(JOBS, namespace=one_of("a")), parse(JOBS, namespace=matching("^t-[0-9]$"))),
        # Apart at one place, though both expressions could match at the other.
        (
            parse("spiffe://example.org/ns/{n}/job/x", n=matching("^a+$")),
            parse("spiffe://example.org/ns/{n}/job/y", n=matching("^a*b$")),
        ),
    ],
)
def test_patterns_that_cannot_meet_are_left_alone(one: IdPattern, other: IdPattern) -> None:
    assert list(PatternIndex([one, other]).overlaps()) == []
    assert shared_id(one, other) is None


def test_two_expressions_at_one_place_count_as_able_to_meet() -> None:
    one, other = parse(JOBS, job=matching("^a[0-9]$")), parse(JOBS, job=matching("^b[0-9]$"))
    assert list(PatternIndex([one, other]).overlaps()) == [(0, 1)]
    assert shared_id(one, other) is None


WORDS = ["a", "b", "c", "zz"]
_LITERALS = st.sampled_from(WORDS[:3])
_RESTRICTIONS = st.one_of(
    st.none(),
    st.frozensets(_LITERALS, min_size=1).map(OneOf),
    st.sampled_from(["^[ab]$", "^[bc]$", "^zz$", "^z+$", "^[a-z]+$"]).map(matching),
)


@st.composite
def _patterns(draw: st.DrawFn) -> IdPattern:
    steps = draw(st.lists(st.one_of(_LITERALS, st.just("{}")), min_size=2, max_size=3))
    assume("{}" in steps and any(step != "{}" for step in steps))
    written, restrictions = [], {}
    for number, step in enumerate(steps):
        written.append(f"{{n{number}}}" if step == "{}" else step)
        if step == "{}" and (restriction := draw(_RESTRICTIONS)) is not None:
            restrictions[f"n{number}"] = restriction
    return IdPattern.parse("spiffe://td/" + "/".join(written), restrictions)


IDS = [SpiffeId("td", "/" + "/".join(parts)) for length in (2, 3) for parts in product(WORDS, repeat=length)]


@settings(deadline=None, max_examples=300)
@given(st.lists(_patterns(), max_size=7))
@pytest.mark.slow
def test_the_index_finds_what_asking_each_pattern_finds(some: list[IdPattern]) -> None:
    index = PatternIndex(some)
    overlaps = set(index.overlaps())
    for spiffe_id in IDS:
        naive = [(number, named) for number, each in enumerate(some) if (named := each.match(spiffe_id)) is not None]
        found = index.find(spiffe_id)
        # Where patterns overlap, which no registry takes, an id may be nobody's that one expression would leave alone.
        assert found == (naive[0] if len(naive) == 1 else None) or (found is None and overlaps)
        # Whatever two match at once was told before; nothing is ambiguous by surprise.
        assert {(a, b) for a, _ in naive for b, _ in naive if a < b} <= overlaps
    for one, other in overlaps:
        shown = shared_id(some[one], some[other])
        if shown is not None:
            assert some[one].match(shown) is not None and some[other].match(shown) is not None
        else:  # only expressions go unproven
            assert any(isinstance(s.restriction, Matching) for each in (some[one], some[other]) for s in each.steps)


def test_finding_asks_no_pattern_but_the_one() -> None:
    """However many patterns there are: of them all, one is asked to match, and its expression once."""
    asked: list[str] = []

    def counting(number: int) -> Matching:
        def matches(value: str) -> bool:
            asked.append(value)
            return True

        return Matching(f"^x{number}$", matches)

    many = [parse(f"spiffe://example.org/ns/n{n}/job/{{job}}", job=counting(n)) for n in range(500)]
    index = PatternIndex(many)
    asked.clear()
    assert index.find(SpiffeId("example.org", "/ns/n499/job/x")) == (499, (("job", "x"),))
    assert asked == ["x"]
    assert index.find(SpiffeId("example.org", "/ns/other/job/x")) is None
    assert asked == ["x"]
