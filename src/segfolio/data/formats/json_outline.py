"""Where the entries of a long list lie in a JSON file, so that each can be parsed when it is needed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segfolio.files import making_many

_GAP = re.compile(r"[ \t\n\r]*")


T = TypeVar("T")


class Entries(Mapping[int, list[T]]):
    """Entries of a JSON list under numbers that several may share, parsed when they are asked for.

    Args:
        data: the file.
        spans: `[3, N]` int64: number, first byte and end of each entry, in the order of numbers.
        parse: makes of an entry what is handed out.
    """

    def __init__(self, data: bytes, spans: npt.NDArray[np.int64], parse: Callable[[Any], T]) -> None:
        self._data, self._parse = data, parse
        self._numbers, self._starts, self._ends = spans

    def __getitem__(self, number: int) -> list[T]:
        low, high = np.searchsorted(self._numbers, (number, number + 1))
        if low == high:
            raise KeyError(number)
        spans = zip(self._starts[low:high].tolist(), self._ends[low:high].tolist(), strict=True)
        return [self._parse(json.loads(self._data[start:end])) for start, end in spans]

    def __iter__(self) -> Iterator[int]:
        return iter(np.unique(self._numbers).tolist())

    def __len__(self) -> int:
        return len(np.unique(self._numbers))


class Irregular(Exception):
    """No JSON object in UTF-8, or one that has a key twice."""


def outline(
    data: bytes, key: str, look: Callable[[int, Any], int]
) -> tuple[dict[str, Any], list[tuple[int, int, int]]]:
    """The top level of a JSON object, one long list of which is gone through entry by entry.

    Args:
        key: of the list.
        look: called with place and value of each entry; what it returns is kept, the value is not.

    Returns:
        the object, with an empty list under `key`; for each entry what `look` returned, and where in `data` its
        text begins and ends.

    Raises:
        Irregular: read the file as a whole, which tells what is wrong.
    """
    text = data.decode("latin-1")  # one character per byte; text beyond ASCII is decoded below
    content: dict[str, Any] = {}
    spans: list[tuple[int, int, int]] = []
    scan = json.JSONDecoder().raw_decode
    try:
        if not data.isascii():
            data.decode()
        with making_many():
            at = _after("{", text, 0)
            while True:
                _, end = scan(text, at)
                name = json.loads(data[at:end])
                at = start = _after(":", text, end)
                if name in content or not isinstance(name, str):
                    raise Irregular
                if name == key and text[at] == "[":
                    content[name] = []
                    at = _skip(text, at + 1)
                    more = text[at] != "]"
                    while more:
                        value, end = scan(text, at)
                        spans.append((look(len(spans), value), at, end))
                        at, more = _next(text, end, "]")
                    at += 1
                else:
                    _, at = scan(text, at)
                    content[name] = json.loads(data[start:at])
                at, more = _next(text, at, "}")
                if not more:
                    break
    except (IndexError, ValueError, RecursionError):
        raise Irregular from None
    if _skip(text, at + 1) != len(text):
        raise Irregular
    return content, spans


def _skip(text: str, at: int) -> int:
    """Behind white space."""
    return found.end() if (found := _GAP.match(text, at)) else at


def _after(mark: str, text: str, at: int) -> int:
    """Where the next value begins, behind white space and `mark`."""
    at = _skip(text, at)
    if text[at] != mark:
        raise Irregular
    return _skip(text, at + 1)


def _next(text: str, at: int, end: str) -> tuple[int, bool]:
    """Behind an entry: where the next one begins, or where `end` stands, and whether there is a next one."""
    at = _skip(text, at)
    if text[at] == end:
        return at, False
    return _after(",", text, at), True
