"""Archives that may be broken or hostile: unpacked whole below one folder, or not at all."""

import filecmp
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import IO

from segfolio.errors import SegfolioError

MAX_FILES = 1_000_000
MAX_GROWTH = 100  # unpacked bytes per byte of the archive; PNG and JPEG hardly shrink, JSON to a tenth
ALWAYS_BYTES = 1 << 30  # however small the archive
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


def unpack(archive: Path, target: Path) -> list[Path]:
    """Unpack a .zip or a .tar, plain or compressed, below `target`; returns what was put there, folders as a whole.

    The contents go to `archive.unpacking` first and are moved when they are complete. A folder that `target`
    lacks is moved at once; in one that it has, files that are there already must be equal.

    Raises:
        SegfolioError: a damaged archive; one that holds links, devices, a name twice or a path that leads out;
            more files or bytes than `MAX_FILES`, `MAX_GROWTH` and the disk allow; another file in its place.
    """
    work = archive.with_name(f"{archive.name}.unpacking")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    try:
        _extract(archive, work)
        return list(_place(work, target))
    except _DAMAGE as error:
        raise SegfolioError(f"{archive} cannot be unpacked into {target}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    room = max(ALWAYS_BYTES, MAX_GROWTH * archive.stat().st_size)
    members = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    for number, (name, source) in enumerate(members(archive), 1):
        if number > MAX_FILES:
            raise SegfolioError(f"{archive} is refused: it holds more than {MAX_FILES} files")
        path = PureWindowsPath(name)  # knows drives, and both slashes
        if path.anchor or ".." in path.parts:
            raise SegfolioError(f"{archive} is refused: its {name!r} leads out of the folder it is unpacked into")
        place = folder.joinpath(*path.parts)
        if source is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            raise SegfolioError(f"{archive} is refused: it holds {name!r} twice")
        with source, place.open("xb") as out:
            while chunk := source.read(1 << 20):
                if (room := room - len(chunk)) < 0:
                    raise SegfolioError(f"{archive} is refused: it unpacks to more than {MAX_GROWTH} times its size")
                out.write(chunk)


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        needed, free = sum(member.file_size for member in members) / 1e9, shutil.disk_usage(archive.parent).free / 1e9
        if needed > free:
            raise SegfolioError(f"{archive} unpacks to {needed:.1f} GB, but {free:.1f} GB are free there; make room")
        for member in members:
            if stat.S_IFMT(mode := member.external_attr >> 16) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise _irregular(archive, member.filename)
            yield member.filename, None if member.is_dir() else file.open(member)


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with tarfile.open(archive) as file:
        for member in file:
            if not (member.isfile() or member.isdir()):
                raise _irregular(archive, member.name)
            yield member.name, file.extractfile(member)  # None of a folder


def _irregular(archive: Path, name: str) -> SegfolioError:
    return SegfolioError(f"{archive} is refused: its {name!r} is a link or a device, expected files and folders alone")


def _place(source: Path, target: Path) -> Iterator[Path]:
    """Move what `target` lacks, below folders that both have."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            yield from _place(entry, target / entry.name)
        return
    elif source.is_dir() or target.is_dir() or not filecmp.cmp(source, target, shallow=False):
        raise SegfolioError(f"{target} is there and is not that of the archive; move it away, or give another --root")
    yield target
