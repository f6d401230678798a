"""The one exception that a user is meant to read."""


class SegfolioError(Exception):
    """A user's mistake or a missing file, said in one sentence: what, where, expected, what to do.

    The command line prints the sentence without a stack trace and exits with status 2.
    """
