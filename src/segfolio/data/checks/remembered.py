"""What was found out of files with effort, remembered until one of them changes.

It lies in `$XDG_CACHE_HOME/segfolio` (`~/.cache/segfolio`), which may be deleted at any time.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from segfolio.data.checks.problems import Problem
from segfolio.files import write_atomically

_WORTH = 1.0
"""Seconds of work from which on its outcome is kept."""

_DIGEST = 32  # bytes before an outcome, which tell whether it is whole


def stamp(path: Path) -> str:
    """Path, size, and both times: that of the last change sees what keeps that of the last writing, as `cp -p` does.

    The path alone where there is no such file.
    """
    name = os.fspath(path)
    try:
        stat = os.stat(name)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return f"{name!r}\n"
    return f"{name!r} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n"


def stamps(files: Iterable[Path]) -> str:
    """One number for the stamps of many files, in order."""
    seen = hashlib.sha256()
    for path in files:
        seen.update(stamp(path).encode())
    return seen.hexdigest()


def remembered(key: Any, make: Callable[[], bytes], worth: float | None = None) -> bytes:
    """`make()`, or what it was when last made under this key.

    Processes that start at the same time all make it; what is damaged is made again.

    Args:
        key: all that the outcome depends on, as JSON holds it; `stamps` of the files that are read and of the code
            that reads them are part of it.
        worth: seconds of work from which on the outcome is kept, where not those of all.
    """
    path = _folder() / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    with contextlib.suppress(OSError):
        digest, kept = (whole := path.read_bytes())[:_DIGEST], whole[_DIGEST:]
        if digest == hashlib.sha256(kept).digest():
            return kept
    start = time.perf_counter()
    made = make()
    if time.perf_counter() - start >= (_WORTH if worth is None else worth):
        with contextlib.suppress(OSError):  # no room to remember: made again next time
            write_atomically(path, hashlib.sha256(made).digest() + made)
    return made


def remembered_problems(key: Any, files: Iterable[Path], find: Callable[[], Iterable[Problem]]) -> list[Problem]:
    """What `find` finds in these files, whose stamps join the key."""
    made = remembered([key, stamps(files)], lambda: json.dumps(list(find())).encode())
    return [Problem(*problem) for problem in json.loads(made)]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segfolio"
