"""Files that are written: below their folder, whole or not there, and never over one that was read."""

import gc
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from segfolio.errors import SegfolioError


class OutputFolder:
    """A folder that the house writes to.

    Args:
        root: the folder.
        inputs: called for the files that were read, over which nothing may be written, once it could happen.

    Raises:
        SegfolioError: a file of that name.
    """

    def __init__(self, root: Path, inputs: Callable[[], Iterable[Path]] = tuple) -> None:
        if root.exists() and not root.is_dir():
            raise SegfolioError(f"{root} is a file, expected a folder to write to; give another --output")
        self.root, self._real, self._find = root, os.path.realpath(root), inputs

    @cached_property
    def _inputs(self) -> frozenset[str]:
        return frozenset(map(os.path.realpath, self._find()))

    def path(self, *names: str) -> Path:
        """Where a file of that name, below folders of those names, is to be written.

        Raises:
            SegfolioError: the names lead out of the folder, links followed; or to a file that was read.
        """
        path = self.root.joinpath(*names)
        real = os.path.realpath(path)
        if not real.startswith(os.path.join(self._real, "")):
            raise SegfolioError(f"{'/'.join(names)!r} would be written outside of {self.root}; rename the image")
        if os.path.exists(real) and real in self._inputs:
            raise SegfolioError(f"{path} was read and would be written over; give another --output")
        return path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or not there; folders are made."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An `OSError` says which file could not be written; of a disk that is full it does not by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def check_page(path: Path | None) -> None:
    """Raises the one sentence on a page that would be written over what is none."""
    if path is not None and path.suffix.lower() not in (".html", ".htm"):
        raise SegfolioError(f"--html {path} is no name of a page; give one that ends in .html")


@contextmanager
def making_many() -> Iterator[None]:
    """While 100,000 objects are made that stay: the garbage collector would go through them again and again."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
