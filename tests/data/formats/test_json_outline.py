"""Entries of a JSON list by their places, against the json module."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segfolio.data.formats.json_outline import Entries, Irregular, outline

few = settings(max_examples=150, deadline=None, derandomize=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["a", "long", "ä", "z"]), values | st.lists(values, max_size=4), min_size=1)


def look(place: int, value: Any) -> int:
    return place


@few
@given(objects, st.sampled_from([None, 1, "\t"]), st.booleans())
def test_it_finds_what_json_finds(content: dict[str, Any], indent: Any, ascii_only: bool) -> None:
    data = json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode()
    found, spans = outline(data, "long", look)
    entries = content["long"] if isinstance(content.get("long"), list) else []
    assert found == {**content, "long": []} if isinstance(content.get("long"), list) else found == content
    assert [json.loads(data[start:end]) for _, start, end in spans] == entries
    assert [number for number, *_ in spans] == list(range(len(entries)))


@few
@given(objects, st.data())
def test_no_damage_goes_unseen(content: dict[str, Any], drawn: st.DataObject) -> None:
    text = json.dumps(content, ensure_ascii=False).encode()
    at = drawn.draw(st.integers(0, len(text) - 1))
    data = text[:at] + drawn.draw(st.sampled_from([b"", b",", b"]", b"}", b" ", b"\xff", b'"'])) + text[at + 1 :]
    try:
        found, spans = outline(data, "long", look)
    except Irregular:
        return
    whole = json.loads(data)
    if isinstance(whole.get("long"), list):
        assert [json.loads(data[start:end]) for _, start, end in spans] == whole["long"]
        whole["long"] = []
    assert found == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"a": 1, "a": 2}',
        '{"long": [1,]}',
        '{"long": [1 2]}',
        '{"long": [1]} 2',
        '{"long": [1]',
        "{1: 2}",
    ],
)
def test_what_is_no_plain_object_is_irregular(text: str) -> None:
    for data in (text.encode(), '{"long": [1]}'.encode("utf-16")):
        with pytest.raises(Irregular):
            outline(data, "long", look)


def test_entries_are_parsed_by_their_number() -> None:
    data = b'[{"x": 1}, {"x": 2}, {"x": 3}]'
    entries = Entries(data, np.array([[4, 4, 9], [11, 21, 1], [19, 29, 9]]), lambda entry: entry["x"])
    assert dict(entries) == {4: [2, 3], 9: [1]}
    assert len(entries) == 2
    assert entries.get(5, []) == []
    assert entries.keys() - {9} == {4}
