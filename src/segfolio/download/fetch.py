"""One file over HTTP: goes on where it stopped, and is whole and as published, or not there."""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from segfolio import __version__
from segfolio.data.dataset import RemoteFile
from segfolio.errors import SegfolioError

TRIES = 6  # in a row that bring nothing new: 31 seconds of waiting
TIMEOUT = 60  # seconds without a byte


class _Broken(Exception):
    """A transfer that another attempt may finish."""


def fetch(file: RemoteFile, path: Path, sleep: Callable[[float], object] = time.sleep) -> None:
    """Bring a file to `path`, by way of `path.part`, which stays where this is interrupted.

    A broken transfer is gone on with (RFC 9110, sections 13.1.5 and 14: `If-Range`, `Range`) as long as the
    attempts bring something new, and given up after `TRIES` in a row that do not. The checksum alone decides
    whether the file is whole, not what a server says of its length. A file that is there and right is left alone.

    Args:
        file: where it is, and its checksum.
        path: where it goes; its folder is made.
        sleep: waits for a number of seconds, before another attempt.

    Raises:
        SegfolioError: no such file at the server, another file than published there or at `path`, too little
            room, a transfer that does not succeed.
    """
    kind, _, published = file.checksum.partition(":")
    if path.exists():
        with path.open("rb") as there:
            found = hashlib.file_digest(there, kind).hexdigest()
        if found != published:
            raise SegfolioError(
                f"{path} has the {kind} {found}, {published} as published; remove it to have it fetched again"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part, version = (path.with_name(path.name + suffix) for suffix in (".part", ".version"))
    failures = most = 0
    while True:
        try:
            _attempt(file, part, version)
            break
        except _Broken as error:
            size = part.stat().st_size if part.exists() else 0
            failures, most = (0, size) if size > most else (failures + 1, most)
            if failures == TRIES:
                raise SegfolioError(
                    f"{file.url} could not be fetched: {error}; the same command goes on where it stopped, "
                    f"or fetch the file by hand to {path}"
                ) from error
            delay = 2 ** max(failures - 1, 0)
            tqdm.write(f"{path.name}: {error}; again in {delay} s", file=sys.stderr)
            sleep(delay)
    part.replace(path)
    version.unlink(missing_ok=True)


def _attempt(file: RemoteFile, part: Path, version: Path) -> None:
    """Fetch what `part` lacks of the file in one request; `version` keeps the server's name for its contents."""
    kind, _, published = file.checksum.partition(":")
    part.touch()
    with part.open("r+b") as out:
        digest, start = hashlib.file_digest(out, kind), out.tell()
        if digest.hexdigest() == published:
            return
        with _request(file.url, start, version) as response:
            if start and not _continues(response, start):
                digest, start = hashlib.new(kind), 0
                out.seek(0)
                out.truncate()
            version.write_text(_version(response))
            total = None if response.length is None else start + response.length
            if total is not None:  # an archive is unpacked beside itself
                _expect_room(part, total - start + (total if file.unpack is not None else 0))
            with tqdm(
                desc=part.stem, initial=start, total=total, unit="B", unit_scale=True, disable=None
            ) as progress:  # of a terminal alone
                for chunk in _chunks(response):
                    digest.update(chunk)
                    progress.update(out.write(chunk))
        size = out.tell()
        out.flush()
        os.fsync(out.fileno())
    if (found := digest.hexdigest()) == published:
        return
    if total is not None and size < total:
        raise _Broken(f"the transfer broke off at {size} of {total} bytes")
    part.unlink()
    version.unlink()
    if start:
        raise _Broken(f"what came from byte {start} on is not of the same file")
    raise SegfolioError(
        f"{file.url} is not what was published: {size} bytes with the {kind} {found}, expected {published}; "
        "look whether a login page or a new version took its place"
    )


def _request(url: str, start: int, version: Path) -> HTTPResponse:
    """Ask for the bytes from `start` on, of the same version where it is known."""
    headers = {"User-Agent": f"segfolio/{__version__}"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version.is_file() and (known := version.read_text()):
            headers["If-Range"] = known
    try:
        return urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if start and error.code == 416:  # nothing lies behind `start`: what is here is of another file
            return _request(url, 0, version)
        if error.code >= 500 or error.code in (408, 425, 429):
            raise _Broken(f"the server answered {error.code} {error.reason}") from error
        raise SegfolioError(f"{url} cannot be fetched: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _Broken(str(error)) from error


def _continues(response: HTTPResponse, start: int) -> bool:
    """Whether this is the part that was asked for; servers may ignore the wish and send the whole."""
    if response.status != 206:
        return False
    if not (told := response.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
        raise _Broken(f"the server sent {told!r} where the bytes from {start} on were asked for")
    return True


def _version(response: HTTPResponse) -> str:
    """What `If-Range` takes: a strong ETag, or else a date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _expect_room(path: Path, needed: int) -> None:
    if needed > (free := shutil.disk_usage(path.parent).free):
        raise SegfolioError(
            f"{path.parent} has {free / 1e9:.1f} GB free, expected {needed / 1e9:.1f} GB for {path.stem}; "
            "make room or give another --root"
        )


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(1 << 20):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Broken(f"the transfer broke off: {error}") from error
