"""`segfolio download`: a dataset's files from its publisher to where its class finds them."""

import difflib
import fcntl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlparse

from segfolio.data.dataset import RemoteFile
from segfolio.data.listing import dataset_classes
from segfolio.download.fetch import fetch
from segfolio.download.unpack import unpack
from segfolio.errors import SegfolioError
from segfolio.files import write_atomically
from segfolio.ledger.command import Parser

WORK = ".download"  # the folder below a root for archives, until they are unpacked, and for what is done


def download(arguments: Sequence[str]) -> int:
    """`NAME --root DIR`; returns the exit status, 130 where it was interrupted.

    Raises:
        SegfolioError: a mistake in the arguments, a dataset that its publisher does not serve to everyone, and
            what `fetch` and `unpack` raise.
    """
    parser = Parser("download")
    parser.add_argument("name", metavar="NAME", help="as in `segfolio datasets`")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where to, later --data.root")
    given = parser.parse_args(arguments)
    classes = dataset_classes()
    if given.name not in classes:
        near = [name for name in classes if given.name.lower() in name.lower()]
        near = near or difflib.get_close_matches(given.name, classes, n=1, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else "`segfolio datasets` lists them"
        raise SegfolioError(f"there is no dataset {given.name!r}; {hint}")
    info = classes[given.name].info
    if not info.files:
        by_hand = info.access or f"Expected is {info.layout}."
        raise SegfolioError(
            f"{info.title} cannot be fetched by a command: {by_hand} Its terms are: {info.licence}. The page is "
            f"{info.url}"
        )
    try:
        with _alone(given.root):
            for file in info.files:
                obtain(file, given.root)
    except OSError as error:
        raise SegfolioError(f"{given.root} cannot be written: {error}") from error
    except KeyboardInterrupt:
        print("segfolio: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(f"{info.title} is in {given.root}: --data.root {given.root} (its terms: {info.licence})")
    if info.access:
        print(info.access)
    return 0


def obtain(file: RemoteFile, root: Path) -> None:
    """Fetch a file to `root`, or unpack it there; nothing is done where that was done and is there still.

    Raises:
        SegfolioError: as of `fetch` and `unpack`.
    """
    name = PurePosixPath(unquote(urlparse(file.url).path)).name
    if file.unpack is None:
        fetch(file, root / name)
        return
    archive, done = root / WORK / name, root / WORK / f"{name}.done"
    if done.is_file():
        checksum, *placed = done.read_text().splitlines()
        if checksum == file.checksum and all((root / path).exists() for path in placed):
            return
    fetch(file, archive)
    placed = [path.relative_to(root).as_posix() for path in unpack(archive, root / file.unpack)]
    write_atomically(done, "\n".join([file.checksum, *placed]).encode())
    archive.unlink()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Of processes that download to one folder, the first."""
    folder = root / WORK
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SegfolioError(f"another `segfolio download` to {root} is at work; wait for it") from error
        yield
