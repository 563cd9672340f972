import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import InvalidInput, Reason
from broker.scope.parameters import (
    CidrParameter,
    EnumParameter,
    IntegerParameter,
    Parameter,
    PrefixParameter,
    RegexParameter,
    compile_pattern,
    hazard,
    shown,
)


def cidr(*within: str, at_least: int) -> CidrParameter:
    return CidrParameter("net", tuple(ipaddress.ip_network(text) for text in within), at_least)


ENUM = EnumParameter("table", ("orders", "lines"))
REGEX = RegexParameter("day", "^20[0-9]{2}-[01][0-9]$", 7)
LOOSE = RegexParameter("anything", "^.+$", 40)
ALTERNATIVES = RegexParameter("either", "^cat|dog$", 10)
PREFIX = PrefixParameter("key", "reports/", 32)
INTEGER = IntegerParameter("rows", -5, 1000)
CIDR = cidr("10.0.0.0/8", "2001:db8::/32", at_least=24)


@pytest.mark.parametrize(
    ("parameter", "text", "canonical"),
    [
        (ENUM, "orders", "orders"),
        (EnumParameter("glob", ("a*", "é")), "a*", "a*"),  # the operator wrote it out
        (EnumParameter("glob", ("a*", "é")), "é", "é"),
        (REGEX, "2026-11", "2026-11"),
        (LOOSE, "x" * 40, "x" * 40),  # 40 = the limit
        (ALTERNATIVES, "dog", "dog"),
        (PREFIX, "reports/", "reports/"),
        (PREFIX, "reports/" + "x" * 24, "reports/" + "x" * 24),  # 32 = the limit
        (PREFIX, "reports/2026/a.b_c=d@e:f+g-h", "reports/2026/a.b_c=d@e:f+g-h"),
        (INTEGER, "0", "0"),
        (INTEGER, "-5", "-5"),
        (INTEGER, "1000", "1000"),
        (CIDR, "10.1.2.0/24", "10.1.2.0/24"),
        (CIDR, "10.1.2.3/32", "10.1.2.3/32"),
        (CIDR, "2001:DB8:0::/48", "2001:db8::/48"),  # RFC 5952
        (cidr("0.0.0.0/0", at_least=0), "0.0.0.0/0", "0.0.0.0/0"),  # 0 = the whole, where it is meant
        (cidr("10.0.0.0/8", at_least=32), "10.1.2.3/32", "10.1.2.3/32"),  # 32 = one address, the narrowest
    ],
)
def test_right_values_come_out_in_their_one_spelling(parameter: Parameter, text: str, canonical: str) -> None:
    assert parameter.parse(text) == canonical
    assert parameter.parse(canonical) == canonical


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        *[(ENUM, text) for text in ("", "Orders", "orders ", "orders\n", "ordеrs", "orders,lines")],  # Cyrillic e
        *[(REGEX, text) for text in ("", "2026-1", "2026-111", "x2026-11", "2026-11\n", "\n2026-11", "２026-11")],
        *[(LOOSE, text) for text in ("x" * 41, "a*", "a?", "$a", "a%", "'", '"', "`", "a\\", "a\tb", "a\0", "é")],
        *[(LOOSE, text) for text in ("..", "a/../b", "./a", "a/.", "a\x7f", "a\u202eb")],
        *[(ALTERNATIVES, text) for text in ("catalogue", "hotdog", "cat|dog")],  # ^ and $ bind both alternatives
        *[(PREFIX, text) for text in ("", "report/", "/reports/", "Reports/a", "reports/../x", "reports/./x")],
        *[(PREFIX, text) for text in ("reports/*", "reports/a b", "reports/${x}", "reports/%2e%2e", "reports/é")],
        *[(PREFIX, text) for text in ("reports/a\n", "reports/" + "x" * 25)],  # 8 + 25 = 33 > 32
        *[
            (INTEGER, text)
            for text in ("", "+1", "-0", "007", "1 ", " 1", "1_0", "1e2", "0x1", "1.0", "NaN", "１", "²")
        ],
        *[(INTEGER, text) for text in ("1001", "-6", "9" * 30)],
        *[(CIDR, text) for text in ("", "10.0.0.0", "10.0.0.0/16", "10.0.0.1/24", "11.0.0.0/24", "0.0.0.0/0")],
        *[(CIDR, text) for text in ("10.0.0.0/255.255.255.0", "10.0.0.0/024", "10.0.0.0/-1", "010.0.0.0/24", "::/0")],
        *[(CIDR, text) for text in ("2001:db8::1%eth0/128", "::ffff:10.0.0.0/128", "10.0.0.0/24/24", "10.0.0.0/33")],
    ],
)
def test_wrong_values_are_refused_with_what_would_be_right(parameter: Parameter, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parameter.parse(text)
    error = caught.value
    assert error.reason is Reason.PARAMETER_INVALID
    assert error.metadata == {
        "parameter": parameter.name,
        "value": shown(text),
        "expected": parameter.expected,
    }
    assert parameter.name in error.message
    assert parameter.expected in error.hint
    assert str(error).isascii()
    assert str(error).isprintable()


def test_a_refused_value_is_shown_escaped_and_cut_to_100() -> None:
    with pytest.raises(InvalidInput) as caught:
        ENUM.parse("\x1b[31m" + "é" * 5000)
    told = caught.value.metadata["value"]
    assert told.startswith("'\\x1b[31m\\xe9")
    assert told.count("\\xe9") == 95  # 100 - len("\x1b[31m")
    assert told.endswith("'...")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "abc",
        "^abc",
        "abc$",
        "^abc\\$",  # the dollar is a character
        "^$",
        "^a*$",  # matches nothing at all
        "^(a$",
        "^a(?=b)b$",  # lookaround: not RE2
        "^(a)\\1$",  # backreference: not RE2
        "^(((x{100}){100}){100})$",  # 10^6 copies
        "^é$",
        "^a\n$",
        "^" + "a" * 255 + "$",  # 257 > 256
    ],
)
def test_a_pattern_that_is_not_anchored_or_not_bounded_is_no_parameter(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        RegexParameter("p", pattern, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda: EnumParameter("p", ()),
        lambda: EnumParameter("p", ("a", "a")),
        lambda: EnumParameter("p", ("",)),
        lambda: EnumParameter("p", ("a\nb",)),
        lambda: EnumParameter("p", ("x" * 513,)),
        lambda: RegexParameter("p", "^a$", 0),
        lambda: RegexParameter("p", "^a$", 513),
        lambda: PrefixParameter("p", ""),
        lambda: PrefixParameter("p", "a*"),
        lambda: PrefixParameter("p", "a/../"),
        lambda: PrefixParameter("p", "a b"),
        lambda: PrefixParameter("p", "abc", 2),
        lambda: IntegerParameter("p", 2, 1),
        lambda: IntegerParameter("p", 0, 2**63),
        lambda: cidr(at_least=8),
        lambda: cidr("10.0.0.0/8", at_least=33),
        lambda: cidr("10.0.0.0/8", at_least=-1),
    ],
)
def test_a_specification_that_makes_no_sense_is_no_parameter(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r".+"):
        make()


def test_a_pattern_that_ruins_backtracking_engines_answers_at_once() -> None:
    # 2^510 steps for a backtracking engine: this test would not end.
    parameter = RegexParameter("p", "^(a|a)*(a+)+b$", 512)
    with pytest.raises(InvalidInput):
        parameter.parse("a" * 511)


def test_only_an_enum_with_hazardous_members_is_not_inert() -> None:
    assert all(parameter.inert for parameter in (ENUM, REGEX, LOOSE, PREFIX, INTEGER, CIDR))
    assert not EnumParameter("p", ("ok", "a*")).inert
    assert not EnumParameter("p", ("é",)).inert


_HOSTILE = st.text(alphabet=st.sampled_from("reports/orders10.0-+:*?$%'\"`\\\n\0é ..２"), max_size=24) | st.text(
    max_size=24
)


@settings(deadline=None)
@given(_HOSTILE)
def test_whatever_passes_any_inert_type_is_harmless(text: str) -> None:
    for parameter in (ENUM, REGEX, LOOSE, ALTERNATIVES, PREFIX, INTEGER, CIDR):
        try:
            value = parameter.parse(text)
        except InvalidInput:
            continue
        assert hazard(value) is None
        assert value.isascii()
        assert value.isprintable()
        assert not set(value) & set("*?$%'\"`\\")
        assert parameter.parse(value) == value


@settings(deadline=None)
@given(st.integers(min_value=-(10**20), max_value=10**20))
def test_an_integer_has_exactly_one_spelling(number: int) -> None:
    parameter = IntegerParameter("n", -(2**63) + 1, 2**63 - 1)
    if parameter.minimum <= number <= parameter.maximum:
        assert int(parameter.parse(str(number))) == number
    else:
        with pytest.raises(InvalidInput):
            parameter.parse(str(number))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_a_network_that_passes_lies_inside_and_is_small_enough(address: int, length: int) -> None:
    text = f"{ipaddress.IPv4Address(address)}/{length}"
    try:
        network = ipaddress.ip_network(CIDR.parse(text))
    except InvalidInput:
        return
    assert network.prefixlen >= 24
    assert network.subnet_of(ipaddress.ip_network("10.0.0.0/8"))


@pytest.mark.parametrize(
    ("parameter", "text", "why"),
    [
        (PREFIX, "reports/" + "x" * 25, "has 33 characters"),
        (PREFIX, "other/x", "starts otherwise"),
        (PREFIX, "reports/~", "has a character outside the set"),
        (CIDR, "10.0.0.0/16", "is too large a network"),
        (CIDR, "11.0.0.0/24", "lies outside"),
        (CIDR, "10.0.0.0", "has no prefix length in decimal"),
        (CIDR, "10.0.0.0/24/24", "has no prefix length in decimal"),
        (CIDR, "fe80::1%eth0/128", "is not a network"),
        (CIDR, "10.0.0.1/24", "is not a network"),
        (CIDR, "10.0.0.*/24", "is not a network"),
        (CIDR, "9" * 512, "has no prefix length in decimal"),
        (CIDR, "9" * 513, "is not a network"),
    ],
)
def test_why_a_value_is_refused_is_said(parameter: Parameter, text: str, why: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parameter.parse(text)
    assert refused.value.message == f"The parameter {parameter.name} {why}: {shown(text)}."


def test_what_is_exactly_as_long_as_is_shown_is_not_cut() -> None:
    assert shown("x" * 100) == repr("x" * 100)
    assert shown("x" * 101) == repr("x" * 100) + "..."


def test_the_bounds_of_a_specification_belong_to_it() -> None:
    assert cidr("10.0.0.0/8", at_least=0).parse("10.0.0.0/8") == "10.0.0.0/8"
    assert cidr("10.0.0.0/8", at_least=32).parse("10.0.0.1/32") == "10.0.0.1/32"
    assert cidr("10.0.0.0/8", "2001:db8::/32", at_least=128).parse("2001:db8::1/128") == "2001:db8::1/128"
    assert EnumParameter("p", ("x" * 512,)).parse("x" * 512) == "x" * 512
    assert RegexParameter("p", "^a$", 1).parse("a") == "a"
    assert RegexParameter("p", "^a+$", 512).parse("a" * 512) == "a" * 512
    assert PrefixParameter("p", "abc", 3).parse("abc") == "abc"
    assert PrefixParameter("p", "abc", 512).parse("abc") == "abc"
    assert PrefixParameter("p", "a").parse("a" * 256) == "a" * 256
    assert IntegerParameter("p", -(2**63) + 1, 2**63 - 1).parse(str(2**63 - 1)) == "9223372036854775807"
    assert IntegerParameter("p", 5, 5).parse("5") == "5"


@pytest.mark.parametrize(
    "make",
    [
        lambda: PrefixParameter("p", "abc", 513),
        lambda: IntegerParameter("p", -(2**63), 0),
        lambda: cidr("10.0.0.0/8", "2001:db8::/32", at_least=129),
        lambda: EnumParameter("p", ("ok", "x" * 513)),
    ],
)
def test_one_beyond_the_bounds_is_too_far(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r".+"):
        make()


def test_a_prefix_is_256_characters_long_where_nothing_else_is_said() -> None:
    with pytest.raises(InvalidInput):
        PrefixParameter("p", "a").parse("a" * 257)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (EnumParameter("p", tuple("abcdefgh")), "one of: a, b, c, d, e, f, g, h"),
        (EnumParameter("p", tuple("abcdefghi")), "one of: a, b, c, d, e, f, g, h and 1 more"),
        (REGEX, "at most 7 ASCII characters that match ^20[0-9]{2}-[01][0-9]$"),
        (PREFIX, "reports/ followed by letters, digits or . _ / = @ : + -, at most 32 characters"),
        (INTEGER, "a whole number from -5 to 1000, in plain decimal"),
        (CIDR, "a network like 10.0.0.0/24 inside 10.0.0.0/8, 2001:db8::/32, /24 or smaller, no host bits set"),
    ],
)
def test_what_would_be_right_is_said(parameter: Parameter, expected: str) -> None:
    assert parameter.expected == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("a b~", None),
        (" ", None),
        ("\x1f", "contains '\\x1f'"),
        ("\x7f", "contains '\\x7f'"),
        ("a*", "contains '*'"),
        ("a/..", "contains a . or .. segment"),
        ("./a", "contains a . or .. segment"),
        ("a..b/.c", None),
    ],
)
def test_what_could_mean_something_else(text: str, why: str | None) -> None:
    assert hazard(text) == why


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("^(a$", "the pattern ^(a$ is not RE2: missing ): ^(a$"),
        # In memory this is over one MiB, and under two.
        ("^\\pL{60}$", "the pattern ^\\pL{60}$ is not RE2: pattern too large - compile failed"),
        ("^a*$", "the pattern ^a*$ matches the empty text"),
        ("^a", "the pattern ^a is not anchored: write ^...$"),
        ("a$", "the pattern a$ is not anchored: write ^...$"),
        ("^a\\$", "the pattern ^a\\$ is not anchored: write ^...$"),
        ("^" + "a" * 255 + "$", "a pattern has at most 256 characters, this one 257"),
        ("^\t$", "a pattern is printable ASCII"),
        ("^é$", "a pattern is printable ASCII"),
    ],
)
def test_why_a_pattern_is_none_is_said_to_whoever_wrote_it_and_to_nobody_else(
    pattern: str, why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError) as refused:
        compile_pattern(pattern)
    assert str(refused.value) == why
    assert capfd.readouterr() == ("", "")  # RE2 would log on its own


def test_a_pattern_never_matches_over_lines_and_may_be_256_long() -> None:
    assert compile_pattern("^a[^b]c$").fullmatch("a\nc") is None
    assert compile_pattern("^a[^b]c$").fullmatch("axc") is not None
    assert compile_pattern("^" + "a" * 254 + "$").fullmatch("a" * 254) is not None
