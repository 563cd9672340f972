"""One canonical form, whichever encoder writes it."""

from __future__ import annotations

import json
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.scope import canonical
from broker.scope.canonical import canonical_json, canonical_row, portable_json, respelt

leaves = st.none() | st.booleans() | st.integers() | st.text()
values = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner), max_leaves=30
)


@given(values)
def test_both_encoders_write_the_same_bytes(value: Any) -> None:
    assert canonical_json(value) == portable_json(value)


@given(values)
def test_it_is_json_and_says_the_value(value: Any) -> None:
    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        return [plain(inner) for inner in item] if isinstance(item, list | tuple) else item

    assert json.loads(canonical_json(value)) == plain(value)


@given(st.dictionaries(st.text(), leaves))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards) == canonical_json(MappingProxyType(backwards))


@given(st.lists(st.none() | st.integers(min_value=-(2**63), max_value=2**63 - 1) | st.text()))
def test_a_row_is_its_list(value: list[Any]) -> None:
    assert canonical_row(value) == canonical_json(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        ('\x00\x1f\x7f"\\/é\u2028😀', '"\\u0000\\u001f\x7f\\"\\\\/é\u2028😀"'),
        ({"é": 1, "z": 2, "😀": 3, "\uffff": 4}, '{"z":2,"é":1,"\uffff":4,"😀":3}'),  # by code point
        (2**70, "1180591620717411303424"),
    ],
)
def test_table(value: Any, text: str) -> None:
    assert canonical_json(value) == text.encode()


@pytest.mark.parametrize("value", [0.5, float("nan"), [1, {"a": 1.0}], {1: 2}, {"a": b"x"}, {"a": {1, 2}}, object()])
def test_what_has_no_canonical_form(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, ["a", "\udfff"]])
def test_text_that_is_no_unicode(value: Any) -> None:
    with pytest.raises(ValueError, match="surrogates"):
        canonical_json(value)


@given(values)
def test_the_base_install_has_the_same_form(value: Any) -> None:
    with_orjson = canonical_json(value)
    kept, canonical.orjson = canonical.orjson, None  # type: ignore[assignment]
    try:
        assert canonical_json(value) == with_orjson
    finally:
        canonical.orjson = kept


@pytest.fixture(params=["orjson", "the base install"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "orjson":
        monkeypatch.setattr(canonical, "orjson", None)


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize(
    ("body", "value", "text"),
    [
        (b'{"a":"\xc3\xa9","b":[1,null]}', {"a": "é", "b": [1, None]}, b'{"a":"\xc3\xa9","b":[1,null]}'),
        (b'{"b": [1, null],\n "a": "\\u00e9"}', {"a": "é", "b": [1, None]}, b'{"a":"\xc3\xa9","b":[1,null]}'),
    ],
)
def test_what_is_spelt_otherwise_is_told_by_its_spelling(body: bytes, value: Any, text: bytes) -> None:
    assert respelt(body) == (value, text)


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize("body", [b"", b'{"a":', b"{'a': 1}", b"\xff"])
def test_what_is_no_json_is_not_respelt(body: bytes) -> None:
    with pytest.raises(ValueError):
        respelt(body)


@pytest.mark.usefixtures("encoder")
def test_a_row_is_written_alike_whichever_encoder_there_is() -> None:
    assert canonical_row(["é", 1, None]) == '["é",1,null]'.encode()
    assert canonical_row([2**70]) == b"[1180591620717411303424]"


class Kind(StrEnum):
    LEASE = "lease"


class Many(list[Any]):
    pass


@pytest.mark.usefixtures("encoder")
@pytest.mark.parametrize(
    ("value", "text"), [({Kind.LEASE: Kind.LEASE}, b'{"lease":"lease"}'), (Many([1, Many(["a"])]), b'[1,["a"]]')]
)
def test_what_is_a_text_or_a_list_by_inheritance_is_one(value: Any, text: bytes) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize("value", [Many([0.5]), Many([1, [0.5]]), MappingProxyType({1: 2})])
def test_inheritance_gives_no_form_to_what_has_none(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)
