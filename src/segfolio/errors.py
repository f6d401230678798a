"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable


class SegfolioError(Exception):
    """A user's mistake or a missing file, said in one sentence: what, where, expected, what to do.

    The command line prints the sentence without a stack trace and exits with status 2.
    """


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of such a sentence: the nearest of `words`, nothing where none is near."""
    near = difflib.get_close_matches(word, list(words), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
