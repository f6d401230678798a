"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable


class SegfolioError(Exception):
    """A user's mistake or a missing file, said in one sentence: what, where, expected, what to do.

    The command line prints the sentence without a stack trace and exits with status 2.
    """


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of such a sentence: the nearest of `words`, nothing where none is near.

    Of dotted words each part is looked at by itself: `modl.lr` is near `model.lr` where there is a `model` alone.
    """
    words = list(words)
    near = _part_by_part(word.split("."), words)
    if near is None and "." not in word:
        near = next(iter(difflib.get_close_matches(word, words, n=1)), None)
    return f"; did you mean {near!r}?" if near else ""


def _part_by_part(parts: list[str], words: Iterable[str]) -> str | None:
    """A dotted word with the nearest part in place of the first that there is not; None where none is near."""
    below = [word.split(".") for word in words]
    if len(parts) == 1:  # of a word that is dotted, its end may have been given
        return next((".".join(each) for each in below if each[-1] == parts[0]), None)
    for place, part in enumerate(parts):
        known = list(dict.fromkeys(each[place] for each in below if len(each) > place))
        if known and part not in known:
            near = difflib.get_close_matches(part, known, n=1)
            return ".".join([*parts[:place], near[0], *parts[place + 1 :]]) if near else None
        below = [each for each in below if len(each) > place and each[place] == part]
    return None
