"""One canonical form, whichever encoder writes it."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.scope import canonical
from broker.scope.canonical import canonical_json, canonical_row, portable_json

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
